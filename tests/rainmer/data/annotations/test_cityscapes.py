"""Polygon files of Cityscapes: the same tolerance as in the other forms."""

import json
from collections import Counter

from rainmer.data.annotations.cityscapes import read_polygons
from rainmer.data.defects import Defects


def test_repairs_are_counted(tmp_path):
    square = [[2, 3], [12, 3], [12, 8], [2, 8]]
    objects = [
        {"label": "car", "polygon": square},
        {"label": "car", "polygon": square},
        {"label": "car", "polygon": [["2", 3], [12, 3], [12, 8]]},  # another shape, the same box
        {"label": "car", "polygon": [[0, 0], [1, "nan"], [1, 1]]},
        {"label": "car", "polygon": square, "deleted": "1"},
        {"label": "road", "polygon": square},
        7,
    ]
    content = {"imgHeight": "24", "imgWidth": 40.0, "objects": objects}
    path = tmp_path / "a_gtFine_polygons.json"
    path.write_text(json.dumps(content))
    defects, other = Defects(), Counter()
    record = read_polygons(path, {"car": 1}, other, defects)
    assert record.size_hw == (24, 40)
    assert [box["bbox"] for box in record.boxes] == [[2, 3, 10, 5]] * 2
    assert defects.counts() == {
        "errors": {"malformed polygon": 1, "malformed object": 1},
        "repairs": {
            "object listed twice, the first counts": 1,
            "number given as text, read as a number": 1,
        },
        "notes": {"polygon marked as deleted, left out": 1},
    }
    assert other == {"road": 1}
