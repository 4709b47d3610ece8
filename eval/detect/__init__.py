"""The main job: mAP of a detector on rainy, derained and clean images."""
