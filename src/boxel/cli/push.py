"""The command that shares a model."""

from __future__ import annotations

from typing import Any

from boxel.cli.options import Command, Option


def _push_options() -> list[Option]:
    private = "whether only the owner may see the model"
    overwrite = "replace the model in a repository that has files already; its history stays"
    out = "write the files and the model card to this folder instead of uploading them"
    return [
        Option("run", "the folder of a finished run", positional=True, is_input=True),
        Option("repo", "the model on the Hugging Face Hub, OWNER/NAME; created if needed", positional=True),
        Option("private", private, bool, default=True),
        Option("license", "license of the weights, e.g. apache-2.0; a public model needs one"),
        Option(
            "datasets", "datasets on the Hugging Face Hub that it was trained on, for the card", list[str]
        ),
        Option("overwrite", overwrite, bool, default=False),
        Option("out", out, metavar="FOLDER", is_output=True),
    ]


def _push(given: dict[str, Any]) -> int:
    from boxel.exporting import push_to_hub

    print(push_to_hub(given.pop("run"), given.pop("repo"), **given))
    return 0


PUSH = Command(
    "Upload a model to the Hugging Face Hub, with a model card.",
    "runs/boxinst anna/pigs --license apache-2.0",
    _push_options,
    _push,
)
