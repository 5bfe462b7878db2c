# SPDX-License-Identifier: Apache-2.0
"""Operators with an oracle, a fast CPU form and, where one pays, a GPU kernel; one folder each."""
