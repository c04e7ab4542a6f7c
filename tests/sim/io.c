// SPDX-License-Identifier: BSD-3-Clause
#include "io.h"

#include <sidecard/block.h>

void sim_io_choose_place(struct sim_io *io, uint32_t most)
{
    uint32_t block = plan.block_size / SIM_SECTOR;
    uint32_t sectors = sim_pick(1, most / block) * block;
    uint32_t where = SIM_SECTORS - sectors;

    if (sim_chance(1, 3)) // a busy corner
        where = where < 4 * block ? where : 4 * block;
    io->ranges[0] = (struct sim_range){.sector = sim_pick(0, where / block) * block, .sectors = sectors};
    io->ranges_count = 1;
}

void sim_io_write(struct sim_io *io, uint64_t now)
{
    for (unsigned i = 0; i < io->ranges_count; i++) {
        const struct sim_range *range = &io->ranges[i];
        io->writes[io->writes_count++] = sim_model_write(range->sector, range->sectors, io->stamp, now);
    }
}

void sim_io_written(const struct sim_io *io, uint64_t now, bool sure)
{
    for (unsigned i = 0; i < io->writes_count; i++)
        sim_model_written(io->writes[i], now, sure);
}

void sim_io_check_read(const struct sim_io *io, const uint8_t *data, uint64_t now)
{
    const struct sim_range *range = &io->ranges[0];

    for (uint32_t i = 0; i < range->sectors; i++) {
        uint64_t stamp = sim_read_sector(data + i * SIM_SECTOR, range->sector + i);
        if (stamp == UINT64_MAX)
            sim_fail("sector %llu reads as something that nobody wrote", (unsigned long long)range->sector + i);
        if (!io->may_be_old && !sim_model_may_read(range->sector + i, stamp, io->invoked, now))
            sim_fail("sector %llu reads as write %llu, which it cannot be", (unsigned long long)range->sector + i,
                     (unsigned long long)stamp);
    }
}

// --- errors, and whose they are ---

static bool is_like(const struct sim_io *io, unsigned op, uint64_t sector, uint32_t sectors)
{
    bool hit = op == SDC_BLOCK_FLUSH;

    for (unsigned r = 0; r < io->ranges_count; r++)
        hit |= io->ranges[r].sector == sector && io->ranges[r].sectors == sectors;
    return io->busy && io->op == op && hit;
}

// How many that are under way do op to that place. doubt: they may fail from now on.
static unsigned count_like(unsigned op, uint64_t sector, uint32_t sectors, bool doubt)
{
    unsigned count = 0;

    for (unsigned i = 0; i < sim_driver->ios_max; i++) {
        struct sim_io *io = sim_driver->io(i);
        if (!io || !is_like(io, op, sector, sectors))
            continue;
        io->may_fail |= doubt;
        count++;
    }
    return count;
}

// A flush has no range, and one error all the same.
static unsigned errors_it_can_have(const struct sim_io *io)
{
    return io->op == SIM_IO_NONE ? 0 : io->op == SDC_BLOCK_FLUSH ? 1 : io->ranges_count;
}

void sim_io_check_swallowed(const struct sim_io *io)
{
    for (unsigned i = 0; !io->may_fail && i < errors_it_can_have(io); i++) {
        const struct sim_range *range = &io->ranges[i];
        if (sim_disk_errors(io->op, range->sector, range->sectors) > count_like(io->op, range->sector, range->sectors, false) - 1)
            sim_fail("the backend's error is swallowed");
    }
}

void sim_io_spread_doubt(const struct sim_io *io)
{
    for (unsigned i = 0; i < errors_it_can_have(io); i++)
        count_like(io->op, io->ranges[i].sector, io->ranges[i].sectors, true);
}

bool sim_io_takes_error(const struct sim_io *io)
{
    for (int own = 1; own >= 0; own--) {
        for (unsigned i = 0; i < errors_it_can_have(io); i++) {
            const struct sim_range *range = &io->ranges[i];
            if (own && count_like(io->op, range->sector, range->sectors, false) > 1)
                continue;
            if (!sim_disk_take_error(io->op, range->sector, range->sectors))
                continue;
            if (!own && io->ranges_count > 1)
                sim_io_spread_doubt(io);
            return true;
        }
    }
    return false;
}
