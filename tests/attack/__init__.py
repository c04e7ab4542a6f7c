# SPDX-License-Identifier: BSD-3-Clause
"""What hostile and clumsy peers do to `sidecard serve`, against the real process."""
