"""`python -m eval.restore`: test sets, runs over them, and tables of PSNR and SSIM."""
