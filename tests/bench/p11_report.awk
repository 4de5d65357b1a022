# SPDX-License-Identifier: Apache-2.0
# Reads "KEYS WAY JSON" lines of tests/bench/p11.sh, prints the tables and the targets.
function field(line, name,    at, rest) {
    at = index(line, "\"" name "\":")
    if (!at) return ""
    rest = substr(line, at + length(name) + 3)
    sub(/[,}].*/, "", rest)
    gsub(/"/, "", rest)
    return rest
}
function median(list,    n, values, i, j, t) {
    n = split(list, values, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && values[j - 1] + 0 > values[j] + 0; j--) {
            t = values[j]; values[j] = values[j - 1]; values[j - 1] = t
        }
    return n ? values[int((n + 1) / 2)] : ""
}
function get(what, keys, way, lane, threads) {
    return median(all[what, keys, way, lane, threads])
}
function cell(what, keys, way, lane, threads,    v) {
    v = get(what, keys, way, lane, threads)
    return v == "" ? "-" : sprintf(v < 10 ? "%.1f" : "%.0f", v)
}
function verdict(text, value, ok) {
    printf "| %s | %s | %s |\n", text, value, ok ? "yes" : "no"
}
{
    line = $0
    lane = field(line, "lane"); threads = field(line, "threads")
    key = $1 SUBSEP $2 SUBSEP lane SUBSEP threads
    if (lane == "gcm-64k-beside") {
        beside_module = beside_module " " field(substr(line, index(line, "\"module\":")), "p50_us")
        beside_evp = beside_evp " " field(substr(line, index(line, "\"evp\":")), "p50_us")
        next
    }
    if (!((lane, threads) in seen) && lane != "find" && lane != "first") {
        order[++rows] = lane SUBSEP threads
        seen[lane, threads] = 1
    }
    if (lane == "find") { sizes[$1] = 1; find_threads[threads] = 1 }
    if (field(line, "cannot") != "") next
    all["p50", key] = all["p50", key] " " field(line, "p50_us")
    all["p99", key] = all["p99", key] " " field(line, "p99_us")
    all["rate", key] = all["rate", key] " " field(line, "per_second")
    all["rss", key] = all["rss", key] " " field(line, "hwm_kib")
}
END {
    n = split(ways, way, " ")
    print "## Targets"
    print ""
    print "| target | measured | met |"
    print "|---|---|---|"
    hop = get("p50", 1, "ours", "random-16", 1)
    verdict("one agent hop with one caller under 45 us (16 random bytes)", hop " us", hop != "" && hop < 45)
    a = get("rate", 1, "ours", "sign-p256", 1); b = get("rate", 1, "ours", "sign-p256", 4)
    if (b != "") verdict("throughput grows with threads (P-256, 1 to 4)", sprintf("%.0f to %.0f/s", a, b), b > a)
    a = get("p50", 1000, "direct", "find", 1); b = get("p50", 1000, "ours", "find", 1)
    if (a != "" && b != "") verdict("finding one of 1,000 keys 100 times faster than SoftHSM", sprintf("%.0f times", a / b), a / b >= 100)
    a = median(beside_evp); b = median(beside_module)
    if (a != "" && b != "") verdict("session-key AES-GCM of 64 KiB within 10 % of EVP, call by call in one process", sprintf("%.1f against %.1f us: %.2f", b, a, a / b), a / b >= 0.9)
    a = get("p50", 1, "direct", "first", 1); b = get("p50", 1, "ours", "first", 1)
    if (a != "" && b != "") verdict("a fresh process to its first signature within 10 ms of the direct one", sprintf("%.1f against %.1f ms", b / 1000, a / 1000), b - a < 10000)
    print ""
    print "## Operations"
    print ""
    printf "| operation | threads |"
    for (i = 1; i <= n; i++) printf " %s p50 | p99 | a second |", way[i]
    printf "\n|---|---|"
    for (i = 1; i <= n; i++) printf "---|---|---|"
    print ""
    for (r = 1; r <= rows; r++) {
        split(order[r], part, SUBSEP)
        printf "| %s | %s |", part[1], part[2]
        for (i = 1; i <= n; i++)
            printf " %s | %s | %s |", cell("p50", 1, way[i], part[1], part[2]), \
                cell("p99", 1, way[i], part[1], part[2]), cell("rate", 1, way[i], part[1], part[2])
        print ""
    }
    print ""
    print "## Finding a key by CKA_CLASS and CKA_ID"
    print ""
    printf "| keys | threads |"
    for (i = 1; i <= n; i++) printf " %s p50 | p99 |", way[i]
    printf "\n|---|---|"
    for (i = 1; i <= n; i++) printf "---|---|"
    print ""
    m = 0
    for (s in sizes) list[++m] = s + 0
    for (i = 2; i <= m; i++) for (j = i; j > 1 && list[j - 1] > list[j]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
    for (k = 1; k <= m; k++) for (t = 1; t <= 64; t++) if (t in find_threads) {
        printf "| %d | %d |", list[k], t
        for (i = 1; i <= n; i++) printf " %s | %s |", cell("p50", list[k], way[i], "find", t), cell("p99", list[k], way[i], "find", t)
        print ""
    }
    print ""
    print "## A fresh process to its first signature, and its memory"
    print ""
    print "| | exec to the end, ms: p50 | slowest | peak resident after sign-p256, KiB |"
    print "|---|---|---|---|"
    for (i = 1; i <= n; i++)
        printf "| %s | %.1f | %.1f | %s |\n", way[i], get("p50", 1, way[i], "first", 1) / 1000, \
            get("p99", 1, way[i], "first", 1) / 1000, cell("rss", 1, way[i], "sign-p256", 1)
}
