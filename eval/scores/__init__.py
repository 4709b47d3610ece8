"""What detections are worth: COCO scores, intervals, kinds of errors, what changed."""
