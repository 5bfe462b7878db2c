# SPDX-License-Identifier: Apache-2.0
"""Pack, verify, hash and download bundles, and put them where others serve them."""

from fewlabel.hub.label_app import add_to_label_app

__all__ = ["add_to_label_app"]
