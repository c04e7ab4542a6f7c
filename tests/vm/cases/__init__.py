# SPDX-License-Identifier: BSD-3-Clause
"""All cases, in the order in which they run."""

from cases import examples, firmware, kept, linux_disk, nvme, nvme_cli, peers, polling, restart, vhost_user

ALL_CASES = [peers.HostPeers,
             linux_disk.LinuxOneQueue, linux_disk.LinuxDiscard, linux_disk.LinuxFourQueues, linux_disk.LinuxFourQueuesSplit,
             linux_disk.LinuxThreads, linux_disk.LinuxReadOnly, linux_disk.LinuxLargeBlocks, linux_disk.LinuxWriteThrough,
             linux_disk.LinuxPinInterrupts,
             vhost_user.VhostUserOneQueue, vhost_user.VhostUserFourQueues, vhost_user.VhostUserFourQueuesSplit,
             vhost_user.VhostUserIommu, vhost_user.VhostUserIommuSplit, vhost_user.VhostUserIommuKilled,
             vhost_user.VhostUserConnects, vhost_user.VhostUserDiscard, vhost_user.VhostUserKilled, vhost_user.VhostUserKilledPacked,
             polling.PollAlways, polling.PollNever, polling.PollAlwaysPrivateMemory, polling.VhostUserPollAlways,
             polling.VhostUserPollNever,
             kept.LinuxKept, kept.LinuxKeptSplit, kept.NvmeKept,
             nvme.NvmeLinux, nvme.NvmeDiscard, nvme.NvmeLargeBlocks, nvme.NvmeEightQueues, nvme.NvmeOneThread, nvme.NvmePinInterrupts,
             nvme.NvmePrivateMemory, nvme.NvmeNeverPolling, nvme.NvmeRegisters, nvme.NvmeAlwaysPolling, nvme.NvmeRestarts,
             nvme.NvmeNamespaces,
             nvme_cli.NvmeCli,
             examples.CardBySysfs, examples.CardPrivateMemory, examples.CardByVfio, examples.EntropyVfioUser, examples.EntropyVhostUser,
             linux_disk.LinuxPrivateMemory, linux_disk.LinuxPrivateMemorySplit, restart.Restarts, firmware.SeaBios, firmware.Ovmf,
             firmware.UBoot, firmware.SeaBiosPrivateMemory, firmware.OvmfPrivateMemory, firmware.UBootPrivateMemory,
             firmware.SeaBiosNvme, firmware.OvmfNvme, firmware.UBootNvme, firmware.SeaBiosNvmePrivateMemory,
             firmware.OvmfNvmePrivateMemory, firmware.UBootNvmePrivateMemory]
