"""Miniature trees in the documented layouts of the published sets."""

import json

import numpy as np
from PIL import Image

from rainmer.frames.images import write_image

SIZE_HW = (24, 40)


def image(path, size_hw=SIZE_HW, seed=0):
    write_image(path, np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8))
    return path


def turned_jpeg(path, stored_hw, orientation):
    """A photo as a phone writes it: pixels as the sensor had them, and an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((*stored_hw, 3), np.uint8)).save(path, exif=exif)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def voc_xml(size_hw, *objects):
    """XML of objects (name, xmin, ymin, xmax, ymax); size None: without."""
    size = ""
    if size_hw is not None:
        size = f"<size><width>{size_hw[1]}</width><height>{size_hw[0]}</height></size>"
    items = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, *box in objects
    )
    return f"<annotation><filename>elsewhere.jpg</filename>{size}{items}</annotation>"


def coco(images, annotations, categories):
    """COCO content of images (id, file_name, size_hw), annotations (image, category, bbox)."""
    return {
        "images": [
            {"id": i, "file_name": name, **({"height": hw[0], "width": hw[1]} if hw else {})}
            for i, name, hw in images
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": bbox, "area": bbox[2] * bbox[3]}
            for n, (i, c, bbox) in enumerate(annotations)
        ],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }


def frame(name, weather, timeofday, *labels):
    """A Scalabel frame with labels (category, x1, y1, x2, y2)."""
    return {
        "name": name,
        "attributes": {"weather": weather, "timeofday": timeofday, "scene": "city street"},
        "labels": [
            {"category": c, "box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
            for c, *box in labels
        ],
    }


# --- one tree for each adapter: (root) -> options as keyword arguments ----------------------------


def coco_tree(root):
    image(root / "images" / "a.jpg")
    image(root / "images" / "sub" / "b.png")
    content = coco(
        [(1, "a.jpg", SIZE_HW), (2, "sub/b.png", SIZE_HW)],
        [(1, 7, [2, 3, 10, 5]), (2, 9, [0, 0, 4, 4])],
        {7: "car", 9: "pedestrian"},
    )
    text(root / "instances.json", content)
    return {}


def yolo_tree(root):
    image(root / "images" / "val" / "a.jpg")
    image(root / "images" / "train" / "z.jpg")
    text(root / "labels" / "val" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(root / "labels" / "train" / "z.txt", "1 0.5 0.5 0.5 0.5\n")
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [car, bus]\n")
    return {}


def voc_tree(root):
    image(root / "JPEGImages" / "a.jpg")
    image(root / "JPEGImages" / "b.jpg")
    for name in "ab":
        xml = voc_xml(SIZE_HW, ("car", 2, 3, 12, 8))
        text(root / "Annotations" / f"{name}.xml", xml)
    text(root / "ImageSets" / "Main" / "val.txt", "b\n")
    return {}


def rid_tree(root):
    turned_jpeg(root / "images" / "A-D-5.jpg", (24, 40), 6)
    text(root / "labels" / "A-D-5.xml", voc_xml((24, 40), ("car", 0, 0, 10, 4)))
    return {}


def ris_tree(root):
    image(root / "125-20160325_091413-300.jpg", (72, 128))
    text(root / "125-20160325_091413-300.xml", voc_xml((36, 64), ("car", 10, 8, 20, 16)))
    return {}


BDD_FRAMES = [
    frame("r-day.jpg", "rainy", "daytime", ("car", 2, 3, 12, 8), ("rider", 1, 1, 5, 9)),
    frame("r-night.jpg", "rainy", "night", ("bike", 2, 3, 12, 8)),
    frame("r-dusk.jpg", "rainy", "dawn/dusk", ("traffic sign", 2, 3, 12, 8)),
    frame("c-day.jpg", "clear", "daytime", ("car", 2, 3, 12, 8)),
]


def bdd100k_tree(root, frames=BDD_FRAMES):
    for number, entry in enumerate(frames):
        image(root / "images" / "100k" / "val" / f"trainA{number % 2}" / entry["name"])
    text(root / "labels" / "bdd100k_labels_images_val.json", frames)
    return {}


ACDC_CLASSES = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip


def acdc_tree(root):
    names = {}
    for number, condition in enumerate(("fog", "night", "rain", "snow"), start=1):
        for split in ("train", "test"):
            name = f"{condition}/{split}/GOPR0{number}/GOPR0{number}_frame_000001_rgb_anon.png"
            image(root / "rgb_anon" / name)
            names[condition, split] = name
        reference = f"{condition}/train_ref/GOPR0{number}/GOPR0{number}_frame_000001"
        image(root / "rgb_anon" / f"{reference}_rgb_ref_anon.png")
    every = [
        (n, names[c, "train"], SIZE_HW) for n, c in enumerate(("fog", "night", "rain", "snow"))
    ]
    boxes = [(n, 26, [2, 3, 10, 5]) for n in range(4)]
    folder = root / "gt_detection"
    for condition, listed in (("rain", every), ("night", every[1:2])):
        ids = {i for i, _, _ in listed}
        content = coco(listed, [b for b in boxes if b[0] in ids], ACDC_CLASSES)
        file = f"instancesonly_{condition}_train_gt_detection.json"
        text(folder / condition / file, content)
    return {}


def dawn_tree(root):
    inner = root / "Rain" / "Rain"
    for name in ("rain_storm-001", "rain_storm-002"):
        image(inner / f"{name}.jpg")
    labels = root / "Rain" / "Rain_YOLO_darknet"
    text(labels / "rain_storm-001.txt", "3 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.1 0.5\n")
    text(labels / "rain_storm-002.txt", "8 0.5 0.5 0.5 0.5\n6 0.5 0.5 0.1 0.1\n")
    return {}


CITY = "aachen_000004_000019"


def rain_name(alpha, pattern):
    return f"{CITY}_leftImg8bit_rain_alpha_{alpha}_beta_0.005_dropsize_0.01_pattern_{pattern}.png"


def raincityscapes_tree(root):
    for pattern, alpha in ((1, "0.01"), (2, "0.02")):
        image(root / "leftImg8bit_rain" / "val" / "aachen" / rain_name(alpha, pattern))
    image(root / "leftImg8bit" / "val" / "aachen" / f"{CITY}_leftImg8bit.png")
    objects = [
        {"label": "car", "polygon": [[2, 3], [12, 3], [7, 8]]},
        {"label": "cargroup", "polygon": [[20, 3], [30, 3], [25, 9]]},
        {"label": "road", "polygon": [[0, 20], [39, 20], [39, 23]]},
        {"label": "bus", "polygon": [[0, 0], [5, 0], [5, 5]], "deleted": 1},
    ]
    content = {"imgHeight": SIZE_HW[0], "imgWidth": SIZE_HW[1], "objects": objects}
    text(root / "gtFine" / "val" / "aachen" / f"{CITY}_gtFine_polygons.json", content)
    return {}


def gtav_tree(root):
    for place, rainy, clean in (
        ("set1/Train", "Rainy", "GT"),
        ("set2/Test", "Rainy", "GT"),
        ("set3", "rainy", "gt"),
    ):
        for version in range(2):
            image(root / place / rainy / f"0000_0{version}.png", seed=version)
        image(root / place / clean / "0000.png")
    return {}


def gt_rain_tree(root):
    scene = root / "GT-RAIN_test" / "Winter-Lake"
    image(scene / "Winter-Lake-Webcam-C-000.png")
    for number in range(2):
        image(scene / f"Winter-Lake-Webcam-R-00{number}.png", seed=number)
    return {}


def coco350_tree(root):
    image(root / "input" / "139.png", (12, 20))
    image(root / "input" / "000000000285.png")
    image(root / "target" / "139.png", (12, 20))
    image(root / "target" / "285.png")
    content = coco(
        [
            (139, "COCO_val2014_000000000139.jpg", SIZE_HW),
            (285, "COCO_val2014_000000000285.jpg", SIZE_HW),
            (999, "COCO_val2014_000000000999.jpg", SIZE_HW),
        ],
        [(139, 3, [4, 6, 20, 10]), (285, 1, [4, 6, 20, 10]), (999, 1, [4, 6, 20, 10])],
        {1: "person", 3: "car"},
    )
    return {"annotations": text(root / "official" / "instances_val2014.json", content)}


def bdd350_tree(root):
    for role in ("input", "target"):
        image(root / role / "r-day.png")
        image(root / role / "r-night.png")
    return {"annotations": text(root / "official" / "det_val.json", BDD_FRAMES)}


def hq_nightrain_tree(root):
    for subset in ("RS", "HQ-NightRain-RD"):
        for role in ("input", "target"):
            image(root / subset / "test" / role / f"{subset[-2:].lower()}-1.png")
    return {}


TREES = {
    "coco": coco_tree,
    "yolo": yolo_tree,
    "voc": voc_tree,
    "mpid-rid": rid_tree,
    "mpid-ris": ris_tree,
    "bdd100k": bdd100k_tree,
    "acdc": acdc_tree,
    "dawn": dawn_tree,
    "raincityscapes": raincityscapes_tree,
    "gtav-nightrain": gtav_tree,
    "gt-rain": gt_rain_tree,
    "coco350": coco350_tree,
    "bdd350": bdd350_tree,
    "bdd350-night": bdd350_tree,
    "hq-nightrain": hq_nightrain_tree,
}
