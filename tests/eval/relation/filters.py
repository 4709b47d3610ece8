"""Filters that stand for derainers: some restore, some only pretend to."""

import cv2
import numpy as np
import torch


def _on_images(function):
    def derain(batch):
        images = batch.permute(0, 2, 3, 1).contiguous().numpy()
        changed = np.stack([function(image) for image in images])
        return torch.from_numpy(changed).permute(0, 3, 1, 2).clamp(0, 1)

    derain.fingerprint = "1"
    return derain


gauss = _on_images(lambda image: cv2.GaussianBlur(image, (3, 3), 0))
erode = _on_images(lambda image: cv2.erode(image, np.ones((1, 3))))
bright = _on_images(lambda image: image * 1.2)
