"""The command that predicts masks for annotation tools."""

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
    return [
        Option("tool", "the annotation tool: label-studio or cvat", tool, metavar="TOOL", aliases=("for",)),
        Option("teacher", "what predicts the masks, as for `boxel label`", default="boxcaseg"),
        Option("host", "address to listen at; 0.0.0.0 lets other machines in", default="127.0.0.1"),
        Option("port", "port to listen at; by default 9090 for Label Studio, 8070 for CVAT", NonNegativeInt),
        Option("token", "password that the tool must give, with any user name", metavar="PASSWORD"),
        Option("images", "folder of Label Studio's local files", metavar="FOLDER", is_input=True),
        Option("hosts", hosts, list[str], metavar="HOST,...", aliases=("from",)),
        Option("device", "`cpu`, `cuda`, `mps`, or `auto` for CUDA if available", default="auto"),
    ]


def _serve(given: dict[str, Any]) -> int:
    from boxel.serving import ServeConfig, serve_tool

    if "tool" not in given:
        raise UsageError("`tool` is missing; give the annotation tool: label-studio or cvat.")
    config = ServeConfig(**given_settings(given, ServeConfig))

    def announce(address: str) -> None:
        host, _, port = address.partition("://")[2].rpartition(":")
        connect = _CONNECT[given["tool"]].format(address=address, host=host, port=port)
        print(f"listening at {address}\n{connect}\nCtrl-C ends", flush=True)

    serve_tool(given["tool"], config, announce)
    return 0


SERVE = Command(
    "Predict the masks of boxes that are drawn in Label Studio or CVAT.",
    "--for label-studio",
    _serve_options,
    _serve,
)
