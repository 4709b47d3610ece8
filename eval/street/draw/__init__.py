"""How scenes are drawn: camera, raster, paint and light."""
