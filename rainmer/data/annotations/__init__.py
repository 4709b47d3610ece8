"""Annotations of objects: a common record type, and a reader for each format."""

from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, clip_to_image
from rainmer.data.annotations.yolo import read_yolo

__all__ = [
    "Annotation",
    "Annotations",
    "ImageRecord",
    "clip_to_image",
    "read_coco",
    "read_yolo",
]
