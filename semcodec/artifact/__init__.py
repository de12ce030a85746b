"""The file that ``semcodec export`` writes, which a device without torch runs: checked before it is used."""
