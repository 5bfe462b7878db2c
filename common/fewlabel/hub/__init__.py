# SPDX-License-Identifier: Apache-2.0
"""Pack, verify, hash and download bundles."""
