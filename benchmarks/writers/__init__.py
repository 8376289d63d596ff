"""Writers of the official file formats, the counterparts of the readers."""
