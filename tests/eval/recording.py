"""What `yolo val` detects, for comparison with the rows of a run."""

from ultralytics.models.yolo.detect import DetectionValidator


def recorded_val(yolo, **options):
    """Run `yolo.val`; return what it would write to its predictions file, and its mAP."""
    records = []

    class Recorder(DetectionValidator):
        def update_metrics(self, preds, batch):
            self.jdict = []
            super().update_metrics(preds, batch)
            for i, pred in enumerate(preds):
                prepared = self._prepare_batch(i, batch)
                self.pred_to_json(self.scale_preds(pred, prepared), prepared)
            records.extend(self.jdict)

    metrics = yolo.val(validator=Recorder, device="cpu", plots=False, verbose=False, **options)
    return records, float(metrics.box.map)
