# SPDX-License-Identifier: Apache-2.0
"""Command-line entry points; thin: parse, call fewlabel, print."""
