"""Drawing tools for scenes: camera, raster, light, and the finish of the picture."""
