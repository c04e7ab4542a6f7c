# SPDX-License-Identifier: BSD-3-Clause
"""A raw vfio-user client, PCI and virtio drivers and ring builders for tests.

Nothing here is shared with the product: these modules are a second reading of the specifications, so that a
mistake in the server isn't repeated by what tests it. Python 3.11's standard library only.
"""
