# SPDX-License-Identifier: BSD-3-Clause
"""What the guest tests are made with: a Debian tree to take programs from, virtual machines, servers, and a report."""
