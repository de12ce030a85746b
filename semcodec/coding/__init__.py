"""Pixels, masks, patches and quantised features as symbols with exact integer priors."""
