"""VOC XML: what it says, what it must not do, and what is broken by name."""

import pytest

from rainmer.data.annotations.voc import read_voc, voc_files
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

OBJECT = (
    "<object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)
SIZE = "<size><width>40</width><height>24</height><depth>3</depth></size>"


def thing(*corners, name="car"):
    return OBJECT.format(*corners, name=name)


def read(tmp_path, content, file="a.xml"):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / file).write_bytes(content)
    defects = Defects()
    return read_voc(voc_files(tmp_path), defects), defects


def test_boxes_names_and_size(tmp_path):
    xml = f"<annotation>{SIZE}{thing(2, 3, 12, 8)}{thing('1.5', 1, 4, 4, name=' big  bus ')}"
    found, defects = read(tmp_path, xml + "</annotation>")
    assert found.categories == {1: "big bus", 2: "car"}
    record = found.records["a"]
    assert record.size_hw == (24, 40)
    assert [(b["category_id"], b["bbox"], b["area"], b["iscrowd"]) for b in record.boxes] == [
        (2, [2, 3, 10, 5], 50, 0),
        (1, [1.5, 1, 2.5, 3], 7.5, 0),
    ]
    assert not defects.lines()


def test_difficult_objects_are_crowds_and_parts_are_no_objects(tmp_path):
    inner = "<difficult>1</difficult><part>" + thing(3, 3, 5, 5, name="head") + "</part></object>"
    item = thing(2, 3, 12, 8).replace("</object>", inner)
    found, defects = read(tmp_path, f"<annotation>{SIZE}{item}</annotation>")
    assert [box["iscrowd"] for box in found.records["a"].boxes] == [1]
    assert found.categories == {1: "car"}
    assert not defects.lines()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings(tmp_path, encoding):
    xml = f"<annotation>{SIZE}{thing(2, 3, 12, 8, name='Füßgänger')}</annotation>"
    found, defects = read(tmp_path, xml.encode(encoding))
    assert found.categories == {1: "Füßgänger"}
    assert not defects.lines()


@pytest.mark.parametrize(
    "size",
    ["", "<size/>", "<size><width>0</width><height>0</height></size>",
     "<size><width>40</width></size>", "<size><width>40.5</width><height>24</height></size>",
     "<size><width>-40</width><height>24</height></size>",
     "<size><width>wide</width><height>nan</height></size>"],
)  # fmt: skip
def test_a_size_that_is_none(tmp_path, size):
    found, _ = read(tmp_path, f"<annotation>{size}{thing(2, 3, 12, 8)}</annotation>")
    assert found.records["a"].size_hw is None


@pytest.mark.parametrize(
    "corners",
    [("2", "3", "2", "8"), ("12,5", "3", "2", "8"), ("x", "3", "12", "8"), ("", "3", "12", "8"),
     ("nan", "3", "12", "8"), ("inf", "3", "12", "8"), ("1_0", "3", "12", "8"),
     ("0x1", "3", "12", "8"), ("-1e308", "-1e308", "1e308", "1e308"), ("1e999", "3", "12", "8"),
     ("9" * 5000, "3", "12", "8"), ("１", "3", "12", "8")],
)  # fmt: skip
def test_malformed_boxes_are_named(tmp_path, corners):
    xml = f"<annotation>{SIZE}{thing(1, 1, 5, 5)}{thing(*corners)}</annotation>"
    found, defects = read(tmp_path, xml)
    assert len(found.records["a"].boxes) == 1
    ((kind, (subject,)),) = defects.errors.items()
    assert kind == "malformed box"
    assert subject.startswith("a.xml: object 2: ")
    assert len(subject) < 120


def test_objects_without_a_name_or_a_box(tmp_path):
    xml = f"<annotation>{thing(1, 1, 5, 5, name=' ')}<object><name>car</name></object></annotation>"
    _, defects = read(tmp_path, xml)
    assert defects.errors == {
        "object without a name": ["a.xml: object 1"],
        "malformed box": ["a.xml: object 2: ['', '', '', '']"],
    }


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
DECLARATIONS = {
    "an entity bomb": f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{LAUGHS}]>',
    "an outer entity": '<!DOCTYPE annotation [<!ENTITY l11 SYSTEM "file:///etc/passwd">]>',
    "an outer document type": '<!DOCTYPE annotation SYSTEM "http://localhost/a.dtd">',
    "a parameter entity": '<!DOCTYPE annotation [<!ENTITY % p SYSTEM "http://localhost/x"> %p;]>',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("what", DECLARATIONS)
def test_declarations_are_refused(tmp_path, what, encoding):
    xml = f"{DECLARATIONS[what]}<annotation>{thing(1, 1, 5, 5, name='&l11;')}</annotation>"
    found, defects = read(tmp_path, xml.encode(encoding))
    assert not found.records
    assert defects.errors == {
        "refused XML file": ["a.xml: it declares a document type or entities"]
    }


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", "malformed XML file", "no element found"),
        (b"<annotation>", "malformed XML file", "no element found"),
        (b"\x00\xff\xfe", "malformed XML file", "a.xml"),
        (b"<html/>", "refused XML file", "its root is <html>"),
        (b"<annotation>" + b"<a>" * 50 + b"</a>" * 50 + b"</annotation>", "refused", "deeper"),
        (b"<annotation>" + b" " * (5 << 20) + b"</annotation>", "refused", "larger than 4 MiB"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "refused", "encoding"),
        (b"<annotation>&nbsp;</annotation>", "malformed XML file", "undefined entity"),
    ],
)
def test_files_that_are_no_annotations(tmp_path, content, kind, reason):
    found, defects = read(tmp_path, content)
    assert not found.records
    ((found_kind, (subject,)),) = defects.errors.items()
    assert found_kind.startswith(kind)
    assert reason in subject


def test_keys_are_relative_paths_and_a_missing_folder_is_named(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "B.XML").write_text("<annotation/>")
    (tmp_path / "notes.txt").write_text("")
    assert list(voc_files(tmp_path)) == ["sub/b"]
    with pytest.raises(DatasetError, match=r"no folder .*nowhere of XML"):
        voc_files(tmp_path / "nowhere")


def test_corners_in_another_order_are_the_same_box(tmp_path):
    things = thing(12, 3, 2, 8) + thing(2, 18, 12, 13) + thing(20, 20, 22, 22)
    found, defects = read(tmp_path, f"<annotation>{SIZE}{things}</annotation>")
    assert [box["bbox"] for box in found.records["a"].boxes] == [
        [2, 3, 10, 5],
        [2, 13, 10, 5],
        [20, 20, 2, 2],
    ]
    kind = "corners of a box in the wrong order, swapped"
    assert defects.repairs == {kind: ["a.xml: object 1", "a.xml: object 2"]}
    assert not defects.errors


def test_an_object_counts_once(tmp_path):
    things = thing(2, 3, 12, 8) + thing("2.0", 3, 12, " 8 ") + thing(2, 3, 12, 8, name="bus")
    found, defects = read(tmp_path, f"<annotation>{SIZE}{things}</annotation>")
    assert [box["category_id"] for box in found.records["a"].boxes] == [2, 1]
    assert defects.repairs == {"object listed twice, the first counts": ["a.xml: object 2"]}


@pytest.mark.parametrize(
    ("flag", "crowd", "repairs"),
    [("1", 1, 0), ("True", 1, 0), ("1.0", 1, 0), ("0", 0, 0), ("", 0, 0), (" false ", 0, 0),
     ("Unspecified", 0, 1), ("2", 0, 1)],
)  # fmt: skip
def test_forms_of_difficult(tmp_path, flag, crowd, repairs):
    item = thing(2, 3, 12, 8).replace("</object>", f"<difficult>{flag}</difficult></object>")
    found, defects = read(tmp_path, f"<annotation>{SIZE}{item}</annotation>")
    assert found.records["a"].boxes[0]["iscrowd"] == crowd
    assert sum(defects.counts()["repairs"].values()) == repairs
    assert not defects.errors


@pytest.mark.parametrize("content", ["<annotation/>", f"<annotation>{SIZE}</annotation>"])
def test_a_file_without_objects_is_an_image_without_objects(tmp_path, content):
    found, defects = read(tmp_path, content)
    assert found.records["a"].boxes == []
    assert not defects.lines()
