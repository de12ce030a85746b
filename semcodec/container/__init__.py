"""The stream format: header, packets and chunks, each checked before it is used."""
