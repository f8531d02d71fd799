"""Log-determinants of maps link by link, and the densities and inverses that stand on them."""
