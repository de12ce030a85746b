"""``semcodec data``."""

from __future__ import annotations

import click

from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json, echo_table


@click.group()
def command() -> None:
    """List and describe data sets."""


@command.command("list")
@options.as_json
def listing(form: str) -> None:
    """The data sets that go by name. Folders are data sets too, in forms such as these; so is what the
    Hugging Face hub has, as hf:OWNER/NAME[@REVISION].

    \b
    FOLDER/<class>/<file>                  videos or images
    FOLDER/images and FOLDER/labels.csv    columns image and label (or
                                           imagenet_index), and split
    FOLDER/images/<split>/<image> and      boxes, in YOLO's layout; names of
    FOLDER/labels/<split>/<image>.txt      the classes in data.yaml
    FOLDER/images/[<split>/] and           masks; what their numbers mean
    FOLDER/masks/[<split>/]<image>.png     in masks/classes.yaml
    FOLDER/JPEGImages and                  masks, in Pascal VOC's layout
    FOLDER/SegmentationClass
    FOLDER/annotations/*.json              boxes and masks of COCO's form
    FOLDER/*.tar                           pictures and classes, webdataset's
                                           form
    """
    from semcodec import data

    rows = data.rows()
    if form == "json":
        echo_json(rows)
        return
    echo_table(
        ("name", "kind", "classes", "train", "test", "description"),
        [(r["name"], r["kind"], r["classes"], r["sizes"]["train"], r["sizes"]["test"], r["description"]) for r in rows],
    )


@command.command()
@click.argument("name", metavar="NAME|FOLDER")
@options.as_json
def show(name: str, form: str) -> None:
    """One data set: what it holds, its classes, sizes and the order-0 entropy of its pixels."""
    from semcodec import data

    found = data.describe(name)
    if form == "json":
        echo_json(found)
        return
    entropy = ", ".join(f"{bits:.2f}" for bits in found["entropy_bits"])
    echo_fields(
        [
            ("name", found["name"]),
            ("kind", found["kind"]),
            ("description", found["description"]),
            ("sizes", ", ".join(f"{split} {size:,}" for split, size in found["sizes"].items())),
            ("entropy", f"{entropy} bit by channel, order 0, at 64x64"),
            ("classes", f"{len(found['classes']):,}: {_names(found['classes'])}"),
        ]
    )


SHOWN = 20


def _names(classes: list[str]) -> str:
    """The first of them; the JSON form has all."""
    separator = "; " if any("," in name for name in classes) else ", "
    more = [f"... and {len(classes) - SHOWN:,} more"] if len(classes) > SHOWN else []
    return separator.join(classes[:SHOWN] + more)
