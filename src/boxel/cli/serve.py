"""The command that serves a model, or masks for annotation tools."""

from __future__ import annotations

from typing import Any, Literal

from boxel.cli.options import Command, Option, given_settings
from boxel.utils.errors import UsageError

_CONNECT = {
    "label-studio": "in Label Studio: Settings > Model > Connect Model, with this address as Backend URL",
    "cvat": "to CVAT's server: CVAT_SERVERLESS=1 CVAT_NUCLIO_INVOKE_METHOD=dashboard CVAT_NUCLIO_HOST={host} "
    "CVAT_NUCLIO_PORT={port}",
}


def _serve_options() -> list[Option]:
    from boxel.utils.config import NonNegativeInt

    tool = Literal["label-studio", "cvat"]
    hosts = "other hosts that images may come from, or Label Studio's address"
    model = "a run folder, or a file of `boxel export`: its predictions as COCO JSON"
    return [
        Option("model", model, positional=True, value_optional=True),
        Option("tool", "the annotation tool: label-studio or cvat", tool, metavar="TOOL", aliases=("for",)),
        Option("teacher", "what predicts the masks, as for `boxel label` (default: boxcaseg)"),
        Option("host", "address to listen at; 0.0.0.0 lets other machines in", default="127.0.0.1"),
        Option(
            "port", "port to listen at; by default 8760, 9090 for Label Studio, 8070 for CVAT", NonNegativeInt
        ),
        Option("token", "password that clients must give, with any user name", metavar="PASSWORD"),
        Option("images", "folder of Label Studio's local files", metavar="FOLDER", is_input=True),
        Option("hosts", hosts, list[str], metavar="HOST,...", aliases=("from",)),
        Option("device", "`cpu`, `cuda`, `mps`, or `auto` for CUDA if available", default="auto"),
    ]


def _serve(given: dict[str, Any]) -> int:
    from boxel.serving import ServeConfig, serve_tool

    if ("tool" in given) == ("model" in given):
        raise UsageError(
            "give either a model to serve, or with `tool` the annotation tool: label-studio or cvat."
        )
    if "model" in given:
        return _serve_model(given)
    config = ServeConfig(**given_settings(given, ServeConfig))

    def announce(address: str) -> None:
        host, _, port = address.partition("://")[2].rpartition(":")
        connect = _CONNECT[given["tool"]].format(address=address, host=host, port=port)
        print(f"listening at {address}\n{connect}\nCtrl-C ends", flush=True)

    serve_tool(given["tool"], config, announce)
    return 0


def _serve_model(given: dict[str, Any]) -> int:
    from boxel.serving import ModelServeConfig, serve_model

    for name in ("teacher", "images", "hosts"):
        if name in given:
            raise UsageError(f"`{name}` does nothing here, since a model is served; leave it out.")
    config = ModelServeConfig(**given_settings(given, ModelServeConfig))

    def announce(address: str) -> None:
        request = f"curl --data-binary @photo.jpg {address}/predict"
        print(f"listening at {address}\n{request}\nCtrl-C ends", flush=True)

    serve_model(config, announce)
    return 0


SERVE = Command(
    "Serve the predictions of a model over HTTP, or masks of the boxes that are drawn in Label Studio or CVAT.",
    "model.onnx",
    _serve_options,
    _serve,
)
