"""The page, by Gradio: what can be chosen on one side, what came of it on the other. It computes nothing itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from semcodec.data.datasets import NAMED
from semcodec.errors import PluginError, SemcodecError
from semcodec.play import figures
from semcodec.play.choices import Control
from semcodec.play.playground import Playground, kind_of

FIRST = "layered+rans+vit-nano-server@block2"
SAMPLE = "digits-scenes"
LARGEST = "32mb"
"""Of a picture or clip that is sent to the page."""


def build(playground: Playground, spec: str | None = None) -> Any:
    """The page, not yet served. spec: what is chosen at first. Raises PluginError without Gradio."""
    gr = _gradio()
    images, videos = playground.specs("image"), playground.specs("video")
    first = spec or (FIRST if FIRST in images else next(iter([*images, *videos]), ""))
    sample = f"{SAMPLE if first not in videos else 'digits-motion'}:0"

    quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}

    def chosen(source: str, at: str) -> tuple[Any, Any]:
        """What fits another input; the spec stays where it does."""
        offered = playground.specs(kind_of(source))
        keep = at if at in offered or (playground.free and at not in {*images, *videos}) else next(iter(offered), "")
        return source, gr.update(choices=offered, value=keep)

    def turned(spec: str, parts: list[str], settings: dict[str, Any]) -> dict[str, Any]:
        """Of the knobs that were turned those that this spec has."""
        known = {control.key for control in playground.controls(spec, parts)}
        return {key: value for key, value in settings.items() if key in known}

    def show(source: str, spec: str, parts: list[str], settings: dict[str, Any]) -> tuple[str, Any]:
        try:
            shown = playground.show(source, spec, parts or [], turned(spec, parts or [], settings))
        except SemcodecError as error:
            return figures.problem(str(error).splitlines()[0]), []
        return figures.page(shown), list(shown.pictures)

    def turn(key: str) -> Callable[..., tuple[dict[str, Any], str, Any]]:
        """Of one knob: what is shown once it is turned."""

        def one(value: Any, before: dict[str, Any], source: str, spec: str, parts: list[str]) -> Any:
            settings = {**before, key: value}
            return settings, *show(source, spec, parts, settings)

        return one

    def count(source: str, spec: str, parts: list[str], settings: dict[str, Any]) -> str:
        try:
            return figures.ends(playground.share(source, spec, parts or [], turned(spec, parts or [], settings)))
        except SemcodecError:
            return ""  # said above

    with gr.Blocks(title="semcodec", analytics_enabled=False) as page:
        source, settings = gr.State(sample), gr.State({})
        gr.Markdown(
            "## semcodec\nWhat a codec for machines sends of a picture or clip, and what the model makes of it."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                with gr.Tab("Picture"):
                    photo = gr.Image(
                        type="filepath", sources=["upload", "webcam", "clipboard"], height=220, label="Picture"
                    )
                with gr.Tab("Clip"):
                    clip = gr.Video(sources=["upload", "webcam"], height=220, label="Clip", include_audio=False)
                with gr.Tab("Built in"):
                    name = gr.Dropdown(list(NAMED), value=SAMPLE, label="Data set")
                    number = gr.Slider(0, 999, value=0, step=1, label="Sample")
                spec_box = gr.Dropdown(
                    images if first not in videos else videos, value=first, label="Spec", elem_id="sc-spec",
                    allow_custom_value=playground.free, info="encoder + entropy coder + model" +
                    (", or any other that composes" if playground.free else ""),
                )  # fmt: skip
                parts_box = gr.Dropdown(
                    _parts(playground, first), value=[], multiselect=True, label="Parts added or replaced"
                )

                def knobs(at: str, parts: list[str]) -> None:
                    try:
                        found = playground.controls(at, parts or [])
                    except SemcodecError:
                        return  # said where the figures would be
                    for control in found:
                        made = _made(gr, control)
                        turned = [made, settings, source, spec_box, parts_box]
                        made.change(turn(control.key), turned, [settings, told, gallery], **quiet).then(
                            count, given, counted, **quiet
                        )

                gr.render(inputs=[spec_box, parts_box])(knobs)

            with gr.Column(scale=3, min_width=320):
                told = gr.HTML(elem_id="sc-figures")
                counted = gr.HTML(elem_id="sc-share")
                gr.Markdown("### What was seen, weighed and received")
                gallery = gr.Gallery(show_label=False, columns=2, object_fit="contain", height="auto", format="png",
                                     interactive=False)  # fmt: skip

        def built_in(name: str, number: float, at: str) -> tuple[Any, Any]:
            return chosen(f"{name}:{int(number)}", at)

        def offered(at: str) -> Any:
            return gr.update(choices=_parts(playground, at), value=[])

        given = [source, spec_box, parts_box, settings]
        photo.change(_taken(chosen), [photo, source, spec_box], [source, spec_box], **quiet)
        clip.change(_taken(chosen), [clip, source, spec_box], [source, spec_box], **quiet)
        for one in (name, number):
            one.change(built_in, [name, number, spec_box], [source, spec_box], **quiet)
        spec_box.change(offered, spec_box, parts_box, **quiet)
        gr.on(
            [page.load, source.change, spec_box.change, parts_box.change], show, given, [told, gallery], **quiet
        ).then(count, given, counted, **quiet)
    return page


def serve(
    playground: Playground,
    spec: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    told: Callable[[str], None] = print,
) -> None:
    """Show the page until the process is stopped. told: takes the line that says where. Raises OSError, PluginError."""
    gr = _gradio()
    page = build(playground, spec)
    page.queue(default_concurrency_limit=1, max_size=32)
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, url, _ = page.launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, inbrowser=False,
        ssr_mode=False, max_file_size=LARGEST, theme=theme, css=CSS, footer_links=[],
    )  # fmt: skip
    told(f"semcodec play: {url}")
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


CSS = ".gradio-container{max-width:1280px!important;margin:auto} footer{display:none!important}"


def _taken(chosen: Callable[[str, str], tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """A picture or clip that was given; what is taken away leaves what there was."""

    def take(path: str | None, before: str, at: str) -> tuple[Any, Any]:
        return chosen(path or before, at)

    return take


def _parts(playground: Playground, spec: str) -> list[str]:
    try:
        return playground.parts(spec)
    except SemcodecError:
        return []


def _made(gr: Any, control: Control) -> Any:
    """A control as the page has it; elem_id tells tests which one it is."""
    common = {"label": control.label, "info": control.help, "value": control.default}
    common["elem_id"] = "sc-" + re.sub(r"[^A-Za-z0-9]+", "-", control.key)
    if control.kind == "slider":
        return gr.Slider(control.low, control.high, step=control.step, **common)
    if control.kind == "choice":
        return gr.Dropdown(list(control.values), **common)
    if control.kind == "switch":
        return gr.Checkbox(**common)
    return gr.Number(**common) if control.kind == "number" else gr.Textbox(**common)


def _gradio() -> Any:
    """Gradio, told to ask nobody anything. Raises PluginError without it."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise PluginError("the playground needs Gradio: pip install 'semcodec[play]'") from None
    return gradio
