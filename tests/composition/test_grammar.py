"""Spec strings parse to exactly what was meant, have one canonical form, and point at what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from semcodec.composition.grammar import Item, format_value, parse, parse_item
from semcodec.errors import SpecError
from semcodec.testing import strategies


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("stae+rans+vit-base", "stae+rans+vit-base"),
        ("stae:pixels=0.40,frames=4+rans+vit-base", "stae:frames=4,pixels=0.4+rans+vit-base"),
        ("top-k@frames:4+attention-sum@pixels:.9", "top-k@frames:4+attention-sum@pixels:0.9"),
        ("aecnn:lr=1e+3,k=+07+huffman+resnet50@layer1.0", "aecnn:k=7,lr=1000.0+huffman+resnet50@layer1.0"),
        ("yolov5n@5", "yolov5n@5"),
        ("  pca:5.,flip=true,edge=deit-tiny\n", "pca:5.0,edge=deit-tiny,flip=true"),
        ("x:a=1e16+rans", "x:a=1e+16+rans"),
        ("x:a=-0.0", "x:a=0.0"),
        ('x:a=\'two words\',b="4",c="true",d="plain"', 'x:a="two words",b="4",c="true",d=plain'),
        (r"x:'a\'b\\c+d'", r'''x:"a'b\\c+d"'''),
        ("x:16x16,path=a/b.c", "x:16x16,path=a/b.c"),
    ],
)
def test_canonical_form(text, canonical):
    assert str(parse(text)) == canonical
    assert str(parse(canonical)) == canonical


def test_a_name_holds_a_slash_unless_it_begins_with_a_kind():
    assert parse_item("timm/resnet50.a1_in1k@layer2") == Item("timm/resnet50.a1_in1k", target="layer2")
    assert parse_item("backbone/yolo/v8n") == Item("yolo/v8n", kind="backbone")
    assert parse_item("encoder/stae") == Item("stae", kind="encoder")
    assert str(parse("backbone/yolo/v8n")) == "backbone/yolo/v8n"


def test_value_types():
    values = {arg.key: arg.value for arg in parse_item("x:a=1,b=1.0,c=true,d=word,e='1',f=-2e-3,g=1.0.0").args}
    assert {key: (type(v), v) for key, v in values.items()} == {
        "a": (int, 1), "b": (float, 1.0), "c": (bool, True), "d": (str, "word"), "e": (str, "1"),
        "f": (float, -0.002), "g": (str, "1.0.0"),
    }  # fmt: skip


def test_positions():
    item = parse("stae+top-k@frames:4,seed=1").items[1]
    text = parse("stae+top-k@frames:4,seed=1").text
    assert text[slice(*item.span)] == "top-k@frames:4,seed=1"
    assert text[slice(*item.target_span)] == "frames"
    assert [text[slice(*arg.span)] for arg in item.args] == ["4", "seed=1"]


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("stae++rans", 5, "name is expected"),
        ("stae+", 5, "name is expected"),
        ("+stae", 0, "name is expected"),
        ("Stae", 0, "name is expected"),
        ("stae rans", 4, "unexpected ' '"),
        ("stae@+rans", 5, "'@' is followed by"),
        ("stae:", 5, "a value is expected"),
        ("stae:frames=", 12, "a value is expected"),
        ("stae:frames=4,", 14, "'key=value' is expected"),
        ("stae:frames=4,5", 14, "only the first"),
        ("stae:frames=4,frames=5", 14, "given twice"),
        ("stae:frames='4", 12, "not closed"),
        ("stae:lr=1e999", 8, "too large"),
        ("stae:seed=99999999999999999999", 10, "too large"),
        ("stae-+rans", 4, "unexpected '-'"),
    ],
)
def test_errors_point_at_the_first_bad_character(text, at, says):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert says in caught.value.message
    assert str(caught.value).splitlines()[2].index("^") == 2 + at


def test_empty_and_several():
    with pytest.raises(SpecError, match="empty"):
        parse("  ")
    with pytest.raises(SpecError, match="single component"):
        parse_item("a+b")


examples = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@examples
@given(strategies.specs())
def test_whatever_is_written_reads_back(spec):
    read = parse(str(spec))
    assert read == spec
    assert str(read) == str(spec)
    for a, b in zip(spec.items, read.items, strict=True):  # 1, 1.0 and true are equal, and are not the same
        assert [type(arg.value) for arg in a.args] == [type(arg.value) for arg in b.args]


@examples
@given(strategies.values())
def test_values_read_back(value):
    read = parse_item(f"x:k={format_value(value)}").args[0].value
    assert (type(read), read) == (type(value), value)


@examples
@given(st.one_of(st.text(), st.text("ab1.+-_/@:,='\"\\ \n", max_size=20)))
@example("x:" + "9" * 5000)
@example("x:\\")
@example("x:²")
def test_any_text_parses_to_a_fixed_point_or_is_a_spec_error(text):
    try:
        canonical = str(parse(text))
    except SpecError as error:
        str(error)
        return
    assert str(parse(canonical)) == canonical
