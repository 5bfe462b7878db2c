# SPDX-License-Identifier: Apache-2.0
"""Kernels against their obvious alternatives: one script, one registry of cases, rows that are only ever appended."""
