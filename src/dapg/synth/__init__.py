"""Synthetic visible-infrared people: a small renderer over the CC0 MakeHuman kit (extra ``synth``)."""
