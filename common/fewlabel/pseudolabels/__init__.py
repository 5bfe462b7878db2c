# SPDX-License-Identifier: Apache-2.0
"""Pseudo-label generators: activation maps, clustering, promptable models."""
