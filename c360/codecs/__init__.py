"""Codecs: bytes of raw topics to the record types an app declares, losslessly, or to a Misfit with its reason."""
