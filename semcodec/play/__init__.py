"""The playground: what a spec makes of a picture or clip, beside its rivals. ``page.py`` shows it; the rest computes."""
