# SPDX-License-Identifier: BSD-3-Clause
"""What people and peers write as text: VERSION's JSON, the command line, configuration files."""

import json

# --- version: JSON with its NUL ---

def version():
    capabilities = {
        "empty": "{}",
        "qemu": '{"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, "pgsizes": 4096, '
                '"max_dma_maps": 65535, "migration": {"pgsize": 4096}, "write_multiple": true}}',
        "cloud-hypervisor": '{"capabilities":{"max_msg_fds":1,"migration":{"pgsize":4096}}}',
        "twin-socket": '{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}',
        "zero-fds": '{"capabilities":{"max_msg_fds":0}}',
        "negative": '{"capabilities":{"max_data_xfer_size":-1}}',
        "twice": '{"capabilities":{"max_msg_fds":1,"max_msg_fds":2}}',
        "deep": '{"capabilities":' + "[" * 20 + "]" * 20 + "}",
        "brackets-in-a-string": '{"a":"[[[[[[[[[[[[[[[[[[[[\\"{{"}',
        "real": '{"capabilities":{"pgsizes":4096.5}}',
        "huge": '{"capabilities":{"pgsizes":99999999999999999999}}',
        "array": "[1,2,3]",
        "not-utf8": '{"\udcff":1}',
        "cut": '{"capabilities":{',
    }
    seeds = {name: text.encode("utf-8", "surrogateescape") + b"\0" for name, text in capabilities.items()}
    seeds["nothing"] = b""
    seeds["no-nul"] = b"{}"
    seeds["two-nuls"] = b"{}\0\0"
    return seeds


# --- options: one argument a line behind a byte that chooses the command ---

def options():
    lines = {
        "serve": ["t", "vm0.sock", "virtio-blk", "disk.img", "--queues=4", "--size-max=64k", "--read-only", "--write-cache=off",
                  "--serial", "DISK1", "--call=good"],
        "dashes": ["t", "--queues", "8", "--", "--queues=x", "-"],
        "unknown": ["t", "--queues=4"],
        "short": ["t", "-q", "4"],
        "no-value": ["t", "--serial"],
        "too-many": ["t", "a", "b", "c", "d"],
        "numbers": ["t", "0", "7", "70", "71", "18446744073709551616", "--queues=18446744073709551615"],
        "sizes": ["t", "1k", "1KiB", "8191P", "8192P", "1kB", "16E", "--size-max=4G", "--size-max=512"],
        "words": ["t", "on", "off", "yes", "virtio-bkl", "nmve", "--write-cache=maybe"],
        "bench": ["b", "vm0.sock", "--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=32", "--numjobs=2", "--runtime=10s",
                  "--ramp_time=1", "--json"],
        "bench-verify": ["b", "vfio-user:vm0.sock", "--rw=randwrite", "--verify", "--size=1M", "--offset=4k", "--number_ios=9"],
        "bench-mistakes": ["b", "vm0.sock", "--rw=randraed", "--poll", "--interrupt", "--bs=100", "--eta=never"],
        "bench-help": ["b", "--help"],
        "bench-memory": ["b", "vm0.sock", "--memory=private", "--twin-socket=on", "--notify=ioeventfd"],
        "bench-vhost": ["b", "vhost-user:vm0.sock", "--memory=private"],
    }
    return {name: "\n".join(text).encode() for name, text in lines.items()}


# --- stack: filters in front of a backend ---

def stack():
    texts = {
        "slice": "slice,offset=1M,size=4k", "of-a-slice": "slice,offset=512:slice,size=1M", "readonly": "readonly", "nothing": "",
        "delay": "delay,all=1ms,read=1us-5us,write=2s,flush=1h,seed=9", "backwards": "delay,read=5ms-1ms", "unit": "delay,read=5",
        "error": "error,op=write,offset=1M,size=64k,after=10,every=3,times=2,errno=ENOSPC,seed=1", "chance": "error,probability=0.25",
        "both": "error,every=2,probability=1", "limit": "limit,iops=1000,read-iops=7,write-iops=1,bw=1G,read-bw=1M,write-bw=9k,burst=2s",
        "four": "readonly:delay,all=1s:limit,bw=1:error", "five": "readonly:readonly:readonly:readonly:readonly",
        "twice": "slice,size=1M,size=2M", "no-value": "slice,offset", "unknown": "slice,ofset=1", "misspelt": "slcie,offset=1",
        "none": "slice", "past": "slice,offset=2G", "odd": "slice,offset=1000", "long": "slice," + "x" * 70, "commas": "readonly,,",
    }
    return {name: text.encode() for name, text in texts.items()}


# --- config: a configuration file ---

def config():
    card = {"socket": "a", "device": "virtio-blk", "backend": "ram:1M"}

    def changed(**change):
        return {"cards": [card, {**card, "socket": "b", **{name.replace("_", "-"): value for name, value in change.items()}}]}

    files = {
        "one": {"cards": [card]},
        "all": {"threads": 2, "loop": "epoll", "log-level": "info", "cards": [{
            **card, "queues": 4, "queue-size": 64, "read-only": True, "block-size": 4096, "write-cache": False, "packed": True,
            "in-order": True, "serial": "S", "seg-max": 9, "size-max": "64k", "direct": False, "raw": True, "allow-file-memory": True,
            "fixed-buffers": True, "connect": True, "socket-mode": "0660", "socket-owner": "0:0"}]},
        "filters": changed(filters=[{"type": "slice", "offset": "4k", "size": 65536}, {"type": "error", "probability": 0.5, "every": 1}]),
        "filter-kinds": {"cards": [{"socket": "a", "device": "nvme", "namespaces": [
            {"backend": "x", "filters": [{"type": "delay", "all": "1ms-2ms"}]}, {"backend": "y", "filters": [{"type": "dealy"}]}]}]},
        "vhost": changed(socket="vhost-user:c", backend="null:1G", block_size="4k"),
        "same-socket": changed(socket="vfio-user:a"),
        "namespaces": changed(namespaces=[{"backend": "x", "read-only": True}]),
        "kinds": changed(queues="4"), "range": changed(queues=0), "power": changed(queue_size=3),
        "long": changed(serial="x" * 99), "word": changed(quees=4), "process": changed(threads=4), "device": changed(device="nvm"),
        "owner": changed(socket_owner="nobody-here"),
        "not-a-list": {"cards": card}, "not-an-object": {"cards": [1, [2], None]}, "no-cards": {"threads": 65}, "array": [],
    }
    texts = {name: json.dumps(file).encode() for name, file in files.items()}
    return {**texts, "cut": b'{"cards": [', "twice": b'{"cards": [], "cards": []}'}
