# SPDX-License-Identifier: Apache-2.0
# Turns the result lines of run.sh (`LANE SERVER PINNED JSON`) into Markdown tables of medians.
# Variables: servers, callers (both blank separated).

# The number behind the last (or the `nth`) "name": in the text.
function number(text, name, nth,    at, i) {
    at = text
    for (i = 1; i <= nth; i++) {
        if (!match(at, "\"" name "\":[-0-9.]+")) {
            return ""
        }
        if (i < nth) {
            at = substr(at, RSTART + RLENGTH)
        }
    }
    return substr(at, RSTART + length(name) + 3, RLENGTH - length(name) - 3) + 0
}

function word(text, name) {
    match(text, "\"" name "\":\"[^\"]*\"")
    return substr(text, RSTART + length(name) + 4, RLENGTH - length(name) - 5)
}

function add(key, value) {
    if (value != "") {
        values[key, ++counts[key]] = value
    }
}

function median(key,    n, i, j, v, sorted) {
    n = counts[key] + 0
    for (i = 1; i <= n; i++) {
        v = values[key, i]
        for (j = i - 1; j >= 1 && sorted[j] > v; j--) {
            sorted[j + 1] = sorted[j]
        }
        sorted[j + 1] = v
    }
    if (n == 0) {
        return ""
    }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

function show(key, format,    m) {
    m = median(key)
    return m == "" ? "-" : sprintf(format, m)
}

function ratio(a, b, format,    x, y) {
    x = median(a)
    y = median(b)
    return x == "" || y == "" || y == 0 ? "-" : sprintf(format, x / y)
}

{
    lane = $1; server = $2; pinned = $3
    json = $0
    sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", json)
    if (lane == "first") {
        add("first " server, number(json, "first_status_ms", 1))
        add("idle " server, number(json, "rss_kib", 1))
        next
    }
    key = lane " " server " " pinned " " word(json, "method") " " number(json, "callers", 1)
    add(key " rate", number(json, "per_second", 1))
    add(key " p50", number(json, "p50_us", 1))
    add(key " p99", number(json, "p99_us", 1))
    add(key " max", number(json, "max_us", 1))
    add(key " errors", number(json, "errors", 1))
    add(key " cpu", number(json, "cpu_us_per_call", 1))
    if (lane == "slow" || lane == "hang") {
        add(key " status rate", number(json, "per_second", 2))
        add(key " status p50", number(json, "p50_us", 2))
        add(key " status p99", number(json, "p99_us", 2))
        add(key " status max", number(json, "max_us", 2))
        add(key " status errors", number(json, "errors", 2))
    } else if (number(json, "hwm_kib", 1) != "") {
        rss[server, pinned] = number(json, "rss_kib", 1) # the last run's: after all the load
        hwm[server, pinned] = number(json, "hwm_kib", 1)
    }
}

function load_table(client, pinned,    m, c, s, i, row, methods, n_methods, n_callers, list, key) {
    n_methods = split("Encrypt Decrypt Status", methods, " ")
    n_callers = split(callers, list, " ")
    printf "\n## Client %s, %s\n\n", client == "h2" ? "nghttp2" : "gRPC C core",
        pinned == "yes" ? "server and client pinned to one core" : "not pinned"
    row = "| method | callers |"
    for (i = 1; i <= n_servers; i++) {
        row = row " " name[i] " calls/s | p50 | p99 | CPU us/call |"
    }
    if (n_servers == 2) {
        row = row " calls/s ratio | p99 ratio | CPU ratio |"
    }
    print row
    gsub(/[^|]+/, "---", row)
    print row
    for (m = 1; m <= n_methods; m++) {
        for (c = 1; c <= n_callers; c++) {
            row = "| " methods[m] " | " list[c] " |"
            for (i = 1; i <= n_servers; i++) {
                key = client " " name[i] " " pinned " " methods[m] " " list[c]
                row = row " " show(key " rate", "%.0f") " | " show(key " p50", "%.0f") " | " \
                    show(key " p99", "%.0f") " | " show(key " cpu", "%.1f") " |"
            }
            if (n_servers == 2) {
                s = " " pinned " " methods[m] " " list[c]
                row = row " " ratio(client " " name[1] s " rate", client " " name[2] s " rate",
                                    "%.2f") " | " \
                    ratio(client " " name[1] s " p99", client " " name[2] s " p99", "%.2f") " | " \
                    ratio(client " " name[1] s " cpu", client " " name[2] s " cpu", "%.2f") " |"
            }
            print row
        }
    }
}

function slow_table(    i, key, lane, l) {
    print "\n## A token that takes 2 ms an operation; then one that hangs\n"
    print "64 Encrypt callers (nghttp2), and beside them, on a connection of its own, Status 500"
    print "times a second. A Status that comes late counts for those that could not be asked"
    print "meanwhile. When a token hangs, calls may fail (deadline 3 s) and Status may say so.\n"
    print "| server | token | Encrypt/s | Encrypt p99 | failed | Status p50 | Status p99 | Status max | Status errors |"
    print "|---|---|---|---|---|---|---|---|---|"
    for (l = 1; l <= 2; l++) {
        lane = l == 1 ? "slow" : "hang"
        for (i = 1; i <= n_servers; i++) {
            key = lane " " name[i] " no Encrypt 64"
            print "| " name[i] " | " (l == 1 ? "2 ms" : "hangs") " | " show(key " rate", "%.0f") \
                " | " (l == 1 ? show(key " p99", "%.0f") : "-") " | " show(key " errors", "%.0f") \
                " | " show(key " status p50", "%.0f") " | " show(key " status p99", "%.0f") \
                " | " show(key " status max", "%.0f") " | " show(key " status errors", "%.0f") " |"
        }
    }
}

function process_table(    i, p) {
    print "\n## Start and memory\n"
    print "| server | exec to first good Status, ms | resident then, MiB | resident after the load, MiB | peak, MiB | pinned: after, MiB | peak, MiB |"
    print "|---|---|---|---|---|---|---|"
    for (i = 1; i <= n_servers; i++) {
        printf "| %s | %s | %.1f | %.1f | %.1f | %.1f | %.1f |\n", name[i],
            show("first " name[i], "%.1f"), median("idle " name[i]) / 1024,
            rss[name[i], "no"] / 1024, hwm[name[i], "no"] / 1024,
            rss[name[i], "yes"] / 1024, hwm[name[i], "yes"] / 1024
    }
}

function met(value, good) {
    return value " | " (good ? "yes" : "no") " |"
}

# Cells of the load tables in which the first server is behind the second in `figure`.
function behind(figure, better,    p, c, m, n, i, list, methods, clients, n_clients, all, bad, key, r) {
    n_clients = split("h2 grpc", clients, " ")
    n = split(callers, list, " ")
    split("Encrypt Decrypt Status", methods, " ")
    cells = ""
    for (p = 0; p < 2; p++) {
        for (c = 1; c <= n_clients; c++) {
            for (m = 1; m <= 3; m++) {
                for (i = 1; i <= n; i++) {
                    key = " " (p ? "yes" : "no") " " methods[m] " " list[i] " " figure
                    r = ratio(clients[c] " " name[1] key, clients[c] " " name[2] key, "%.2f")
                    all++
                    if (better == "more" ? r + 0 < 1 : r + 0 > 1) {
                        bad++
                        cells = cells (cells == "" ? "" : ", ") clients[c] (p ? " pinned " : " ") \
                            methods[m] " " list[i] " (" r ")"
                    }
                }
            }
        }
    }
    return met((all - bad) " of " all " cells" (bad ? "; behind: " cells : ""), bad == 0)
}

function one_caller(client, pinned, method,    key, r) {
    key = " " pinned " " method " 1 rate"
    r = ratio(client " " name[1] key, client " " name[2] key, "%.2f")
    return "| 1 caller, " method ", " client (pinned == "yes" ? " pinned" : "") \
        ": 1.4 times the calls/s | " met(r, r + 0 >= 1.4)
}

function target_table(    p, c, m, v, clients, methods) {
    split("h2 grpc", clients, " ")
    split("Encrypt Decrypt", methods, " ")
    print "\n## Targets: " name[1] " against " name[2] "\n"
    print "| target | measured | met |"
    print "|---|---|---|"
    v = median("first " name[1])
    print "| exec to first good Status within 50 ms | " met(sprintf("%.1f ms", v), v <= 50)
    for (m = 1; m <= 2; m++) {
        for (c = 1; c <= 2; c++) {
            for (p = 0; p < 2; p++) {
                print one_caller(clients[c], p ? "yes" : "no", methods[m])
            }
        }
    }
    print "| ahead in calls/s | " behind("rate", "more")
    print "| ahead in p99 | " behind("p99", "less")
    print "| (no target) less CPU per call | " behind("cpu", "less")
    print "| less resident memory after the load | " met(sprintf("%.1f to %.1f MiB", \
        rss[name[1], "no"] / 1024, rss[name[2], "no"] / 1024), rss[name[1], "no"] < rss[name[2], "no"])
    v = median("slow " name[1] " no Encrypt 64 rate")
    print "| 2 ms token, 64 callers: 7,000 Encrypt/s | " met(sprintf("%.0f", v), v >= 7000)
    v = median("slow " name[1] " no Encrypt 64 status p99")
    print "| Status p99 meanwhile below 1 ms | " met(sprintf("%.0f us", v), v < 1000)
    v = median("hang " name[1] " no Encrypt 64 status p99")
    print "| Status p99 while the token hangs below 1 ms | " met(sprintf("%.0f us", v), v < 1000)
}

function floor_table(    m, t, list, n, key, method) {
    print "\n## The token alone, called in process\n"
    print "| operation | threads | calls/s | p50 | p99 |"
    print "|---|---|---|---|---|"
    n = split("1 8 32", list, " ")
    for (m = 1; m <= 2; m++) {
        method = m == 1 ? "Encrypt" : "Decrypt"
        for (t = 1; t <= n; t++) {
            key = "floor softhsm no " method " " list[t]
            print "| " method " | " list[t] " | " show(key " rate", "%.0f") " | " \
                show(key " p50", "%.0f") " | " show(key " p99", "%.0f") " |"
        }
    }
}

END {
    n_servers = split(servers, name, " ")
    if (n_servers == 2) {
        target_table()
    }
    process_table()
    slow_table()
    load_table("h2", "yes")
    load_table("h2", "no")
    load_table("grpc", "yes")
    load_table("grpc", "no")
    floor_table()
}
