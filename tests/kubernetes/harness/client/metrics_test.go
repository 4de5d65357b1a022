// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
	"kmsbridge.test/harness/fixture"
)

// metric sums the samples of the client's own metrics that bear these labels: counters and gauges by
// value, histograms by count.
func metric(t testing.TB, name string, labels map[string]string) int {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	fixture.Must(t, err, "gather metrics")
	total := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	samples:
		for _, m := range family.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for k, v := range labels {
				if has[k] != v {
					continue samples
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return int(total)
}

// operations counts the RPCs of a provider by method and code, as the client saw them.
func operations(t testing.TB, p provider, method, code string) int {
	t.Helper()
	return metric(t, "apiserver_envelope_encryption_kms_operations_latency_seconds", map[string]string{
		"provider_name": p.name, "method_name": "/v2.KeyManagementService/" + method, "grpc_status_code": code})
}
