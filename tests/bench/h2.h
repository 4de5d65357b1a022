/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lean gRPC client: libnghttp2 over one unix socket, one thread, one connection, one stream per
 * caller (as kube-apiserver: one connection, many calls).
 */
#ifndef KMSBRIDGE_TESTS_BENCH_H2_H
#define KMSBRIDGE_TESTS_BENCH_H2_H

#include <stdbool.h>

#include "tests/bench/load.h"

/* A load_transport. */
bool h2_run(struct load *load);

#endif
