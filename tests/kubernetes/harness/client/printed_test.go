// SPDX-License-Identifier: Apache-2.0

package client

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kmsbridge.test/harness/fixture"
)

// What `kmsbridgectl encryption-config` prints is what the real, strict loader takes, and it works.
func TestPrintedConfiguration(t *testing.T) {
	t.Parallel()
	ctl := os.Getenv("KMSBRIDGECTL")
	if _, err := exec.LookPath(ctl); err != nil {
		fixture.Missing(t, "KMSBRIDGECTL: %v", err)
	}
	d := fixture.StartDaemon(t, fixture.NewToken(t), fixture.Options{})
	text, err := exec.Command(ctl, "encryption-config", "--config", d.Config).Output()
	fixture.Must(t, err, "kmsbridgectl encryption-config")
	file := filepath.Join(fixture.Dir(t), "enc.yaml")
	fixture.Must(t, os.WriteFile(file, text, 0o600), "EncryptionConfiguration")
	a := bootFile(t, file)
	if err := a.health(); err != nil {
		t.Fatalf("health: %v\n%s", err, text)
	}
	blob := a.mustWrite("s1", "printed")
	a.mustRead("s1", blob, "printed", false)
	parse(t, blob)
	// Secrets that were written before encryption was turned on must stay readable.
	a.mustRead("s0", []byte("from before"), "from before", true)
}
