"""The paper's five ablations beside the full system, trained and measured on drawn people."""
