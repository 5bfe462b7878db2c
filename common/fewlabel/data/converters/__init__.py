# SPDX-License-Identifier: Apache-2.0
"""Turn published data sets as they are downloaded into images, label maps and a data list.

A converter reads a folder and writes a new one: ``images``, ``labels``, ``datalist.json`` and ``manifest.json`` with
the SHA-256 of every file that it read and what it found in it. All problems of a download are reported at once; a
folder that exists is never written to, and a conversion that stops leaves nothing behind.
"""

from __future__ import annotations

from fewlabel.data.converters.bcdata import convert_bcdata
from fewlabel.data.converters.imagescope import Annotation, read_annotation
from fewlabel.data.converters.monuseg import convert_monuseg
from fewlabel.data.converters.polygons import instance_map

__all__ = ["Annotation", "convert_bcdata", "convert_monuseg", "instance_map", "read_annotation"]
