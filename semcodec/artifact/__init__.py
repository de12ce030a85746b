"""The file that ``semcodec export`` writes: what a device without torch runs. Each part is checked before it is used."""
