// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"kmsbridge.test/harness/fixture"
	"kmsbridge.test/harness/stored"
)

// What the documents have an operator type at a cluster is fenced there as ```sh run kubernetes, and
// what it prints, behind it, as ```text seen (as in tests/services/guide.sh). tests/checks/kubectl.sh
// sees to it that no document has a kubectl line that is not.
const (
	fenceRun  = "```sh run kubernetes"
	fenceSeen = "```text seen"
)

// documents have such fences; a document is run on the KEK that it is about.
var documents = []struct {
	file, service string // service: KMSBRIDGE_KEY_SERVICE, or any
	run           func(*operator, block)
}{
	{"README.md", "", runReadme},
	{"docs/alibaba.md", "alibaba", runAlibaba},
}

// block is a fence.
type block struct {
	file   string
	line   int
	script string
	seen   []string
}

// typed is the line of the block in which all these words are.
func (b block) typed(t testing.TB, words ...string) string {
	t.Helper()
next:
	for line := range strings.Lines(b.script) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		return strings.TrimSuffix(line, "\n")
	}
	t.Fatalf("%s:%d has no line with %q", b.file, b.line, words)
	return ""
}

func source(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("KMSBRIDGE_SOURCE")
	if root == "" {
		t.Fatal("KMSBRIDGE_SOURCE does not name the source tree")
	}
	return filepath.Join(root, name)
}

// blocks takes the fences out of a text. "text seen" is about the last "sh run", whoever runs that.
func blocks(file, text string) []block {
	var all []block
	var fence string
	ours, number := false, 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "```") && fence != "":
			fence = ""
		case strings.HasPrefix(line, "```"):
			fence = line
			if line == fenceRun {
				all = append(all, block{file: file, line: number})
			}
			if strings.HasPrefix(line, "```sh run") {
				ours = line == fenceRun
			}
		case fence == fenceRun:
			all[len(all)-1].script += line + "\n"
		case fence == fenceSeen && ours:
			last := &all[len(all)-1]
			last.seen = append(last.seen, line)
		}
	}
	return all
}

func blocksOf(t testing.TB, file string) []block {
	t.Helper()
	text, err := os.ReadFile(source(t, file))
	fixture.Must(t, err, file)
	return blocks(file, string(text))
}

// lacks is a line that was to be seen and is not there; `...` is any text.
func (b block) lacks(out string) string {
	for _, want := range b.seen {
		like := strings.ReplaceAll(regexp.QuoteMeta(want), `\.\.\.`, `.*`)
		if !regexp.MustCompile(`(?m)^` + like + `$`).MatchString(out) {
			return want
		}
	}
	return ""
}

// operator is somebody with kubectl and etcdctl at a terminal.
type operator struct {
	*apiserver
	hsm *fixture.Token
	d   *fixture.Daemon
	env []string
	dir string
}

func newOperator(t testing.TB, a *apiserver, hsm *fixture.Token, d *fixture.Daemon) *operator {
	t.Helper()
	dir := fixture.Dir(t)
	conf, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"clusters": []any{map[string]any{"name": "it", "cluster": map[string]any{"server": a.url,
			"certificate-authority": filepath.Join(a.dir, "certs", "apiserver.crt")}}},
		"users":    []any{map[string]any{"name": "it", "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "it", "context": map[string]any{"cluster": "it", "user": "it"}}}})
	fixture.Must(t, err, "kubeconfig")
	fixture.Must(t, os.WriteFile(filepath.Join(dir, "config"), conf, 0o600), "kubeconfig")
	return &operator{apiserver: a, hsm: hsm, d: d, dir: dir, env: append(os.Environ(),
		"PATH="+filepath.Dir(binary(t, "kubectl"))+":"+os.Getenv("PATH"), "HOME="+dir,
		"KUBECONFIG="+filepath.Join(dir, "config"), "ETCDCTL_ENDPOINTS="+a.etcd.url,
		// where they are installed, the examples are in one folder
		"EXAMPLES="+source(t, "conf/kubernetes"))}
}

// try types lines at a shell that ends at the first that fails.
func (o *operator) try(script string) (string, error) {
	limit, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limit, "bash", "-e", "-u", "-o", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = o.dir, o.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (o *operator) types(script string) string {
	o.t.Helper()
	out, err := o.try(script)
	if err != nil {
		o.t.Fatalf("%s\n%v: %s", script, err, out)
	}
	return out
}

// prints checks what a command prints, and that the server does not warn.
func (o *operator) prints(script string, want ...string) {
	o.t.Helper()
	out := o.types(script)
	for _, w := range want {
		if !strings.Contains(out, w) {
			o.t.Errorf("%s\nprints no %q: %s", script, w, out)
		}
	}
	if strings.Contains(out, "Warning:") {
		o.t.Errorf("%s\nis warned of: %s", script, out)
	}
}

func (o *operator) file(name, text string) string {
	o.t.Helper()
	name = filepath.Join(o.dir, name)
	fixture.Must(o.t, os.WriteFile(name, []byte(text), 0o600), name)
	return name
}

// run runs a fence as it stands there.
func (o *operator) run(b block) string {
	o.t.Helper()
	out := o.types(b.script)
	if line := b.lacks(out); line != "" {
		o.t.Errorf("%s:%d: no %q in: %s", b.file, b.line, line, out)
	}
	return out
}

// secretsUnder is all Secrets in etcd by what they are stored under: a key_id, or "" in the clear.
func (o *operator) secretsUnder() map[string][]string {
	o.t.Helper()
	under := map[string][]string{}
	for _, kv := range o.etcd.under("/registry/secrets/") {
		id := ""
		if bytes.HasPrefix(kv.Value, []byte(stored.Prefix)) {
			object, err := stored.Parse(kv.Value)
			fixture.Must(o.t, err, string(kv.Key))
			id = object.KeyID
		}
		under[id] = append(under[id], string(kv.Key))
	}
	return under
}

// The API server begins without encryption, as a cluster does, and takes at its next start the
// configuration that `kmsbridgectl encryption-config` prints. Then the documents.
func TestDocuments(t *testing.T) {
	t.Parallel()
	hsm := fixture.NewToken(t)
	d := fixture.StartDaemon(t, hsm, fixture.Options{})
	e := startEtcd(t)
	a := newAPIServer(t, e, true, "secrets", identity) // with the two flags of README, step 5
	a.start()
	o := newOperator(t, a, hsm, d)

	step(t, a, "before there is encryption", func(t *testing.T) {
		o.types("kubectl create namespace other")
		for _, namespace := range []string{"default", "other"} {
			o.types("kubectl create secret generic older --from-literal=k=" + namespace + " --namespace=" + namespace)
		}
		if under := o.secretsUnder(); len(under) != 1 || len(under[""]) != 2 {
			t.Errorf("in etcd: %v", under)
		}
	})
	step(t, a, "README step 5", func(t *testing.T) {
		text := fixture.Run(t, nil, os.Getenv("KMSBRIDGECTL"), "encryption-config", "--config", d.Config)
		fixture.Must(t, os.WriteFile(a.config, []byte(text), 0o600), "EncryptionConfiguration")
		a.restart()
		if under := o.secretsUnder(); len(under) != 1 || len(under[""]) != 2 {
			t.Errorf("in etcd: %v", under)
		}
	})
	for _, document := range documents {
		if document.service != "" && document.service != os.Getenv("KMSBRIDGE_KEY_SERVICE") {
			continue
		}
		for _, b := range blocksOf(t, document.file) {
			step(t, a, fmt.Sprintf("%s line %d", document.file, b.line), func(t *testing.T) { document.run(o, b) })
		}
	}
	step(t, a, "static pod", o.staticPod)
	step(t, a, "misspelt field is refused", func(t *testing.T) {
		for _, name := range []string{"kmsbridged-static-pod.yaml", "kmsbridged-agent-daemonset.yaml"} {
			text, err := os.ReadFile(source(t, "conf/kubernetes/"+name))
			fixture.Must(t, err, name)
			bad := strings.Replace(string(text), "automountServiceAccountToken:", "automountServiceAcountToken:", 1)
			out, err := o.try("kubectl apply --validate=strict --dry-run=server -f " + o.file("bad.yaml", bad))
			if err == nil || !strings.Contains(out, "automountServiceAcountToken") {
				t.Errorf("%s: %v %s", name, err, out)
			}
		}
	})
}

// README, step 6: a Secret is stored under KMS v2, and what was there before once it is written
// again. After a rotation the same line writes all under the new key.
func runReadme(o *operator, b block) {
	t := o.t
	out := o.run(b)
	if want := stored.Prefix + "kmsbridge:"; !strings.Contains(out, want) {
		t.Errorf("etcdctl prints no %q: %s", want, out)
	}
	// "older" twice, and what the block creates
	under := o.secretsUnder()
	old := o.etcd.secret("demo").KeyID
	if len(under) != 1 || len(under[old]) != 3 {
		t.Errorf("after it in etcd: %v", under)
	}
	o.prints(`kubectl get secret demo -o jsonpath='{.data.colour}' | base64 -d`, "green")
	o.prints(`kubectl get secret older --namespace=other -o jsonpath='{.data.k}' | base64 -d`, "other")

	// `kmsbridgectl encryption-config` tells the same line.
	rewrite := b.typed(t, "kubectl get secrets", "kubectl replace")
	text, err := os.ReadFile(o.config)
	fixture.Must(t, err, "EncryptionConfiguration")
	if !strings.Contains(string(text), "\n#   "+rewrite+"\n") {
		t.Errorf("kmsbridgectl encryption-config does not tell %q", rewrite)
	}
	o.hsm.AddKey("02")
	fixture.Eventually(t, notice, "the new key is written under", func() error {
		if err := o.health(); err != nil {
			return err
		}
		o.touch("older")
		if o.etcd.secret("older").KeyID == old {
			return errors.New("still the old key")
		}
		return nil
	})
	if under := o.secretsUnder(); len(under[old]) != 2 {
		t.Errorf("after a rotation in etcd: %v", under)
	}
	o.types(rewrite)
	fresh := o.etcd.secret("older").KeyID
	if under := o.secretsUnder(); len(under) != 1 || len(under[fresh]) != 3 {
		t.Errorf("rewritten, in etcd: %v", under)
	}
	o.prints(`kubectl get secret older --namespace=other -o jsonpath='{.data.k}' | base64 -d`, "other")
}

// docs/alibaba.md, step 3: the server takes the DaemonSet, with what the webhook looks for, and would
// take its pods.
func runAlibaba(o *operator, b block) {
	t := o.t
	o.run(b)
	get := func(what, path, want string) {
		t.Helper()
		if got := o.types("kubectl get --namespace=kmsbridge " + what + " -o jsonpath='{" + path + "}'"); got != want {
			t.Errorf("%s has %s %q, not %q", what, path, got, want)
		}
	}
	get("namespace/kmsbridge", `.metadata.labels.pod-identity\.alibabacloud\.com/injection`, "on")
	get("serviceaccount/kmsbridge", `.metadata.annotations.pod-identity\.alibabacloud\.com/role-name`, "kmsbridge")
	get("daemonset/kmsbridged", ".spec.template.spec.serviceAccountName", "kmsbridge")
	get("daemonset/kmsbridged", ".spec.template.spec.priorityClassName", "system-node-critical")
	o.prints("kubectl get daemonsets --all-namespaces", "kmsbridged")
	const again = "kubectl apply --validate=strict -f $EXAMPLES/kmsbridged-agent-daemonset.yaml"
	o.prints(again, "namespace/kmsbridge unchanged", "serviceaccount/kmsbridge unchanged",
		"configmap/kmsbridge unchanged", "daemonset.apps/kmsbridged unchanged")

	// There is no controller here: a pod as the DaemonSet's would make it. The node's folder needs the
	// namespace's label.
	var set struct {
		Spec struct{ Template map[string]any }
	}
	fixture.Must(t, json.Unmarshal([]byte(o.types("kubectl get daemonset kmsbridged --namespace=kmsbridge -o json")), &set), "DaemonSet")
	pod := set.Spec.Template
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	pod["metadata"].(map[string]any)["name"] = "one"
	text, err := json.Marshal(pod)
	fixture.Must(t, err, "pod")
	create := "kubectl create --validate=strict --dry-run=server --namespace=kmsbridge -f " + o.file("pod.json", string(text))
	o.prints(create, "pod/one created")
	const label = "kubectl label --overwrite namespace kmsbridge pod-security.kubernetes.io/enforce="
	o.types(label + "baseline")
	if out, err := o.try(create); err == nil || !strings.Contains(out, "hostPath") {
		t.Errorf("without the label the pod is taken, or refused for something else: %v %s", err, out)
	}
	o.types(label + "privileged")

	// For a cluster of one's own the document has the token's volume, to be put in.
	fragment := between(t, b.file, "mount the token into the DaemonSet yourself:\n\n```yaml\n", "```\n")
	o.types("kubectl patch daemonset kmsbridged --namespace=kmsbridge --patch-file=" + o.file("patch.yaml",
		"spec:\n  template:\n    spec:\n      containers:\n      - name: kmsbridged\n"+fragment))
	const projected = `.spec.template.spec.volumes[?(@.name=="rrsa")].projected.sources[0].serviceAccountToken`
	get("daemonset/kmsbridged", projected+".audience", "sts.aliyuncs.com")
	get("daemonset/kmsbridged", projected+".path", "token")
	get("daemonset/kmsbridged", `.spec.template.spec.containers[0].volumeMounts[?(@.name=="rrsa")].readOnly`, "true")
}

func between(t testing.TB, file, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(source(t, file))
	fixture.Must(t, err, file)
	_, rest, ok := strings.Cut(string(text), from)
	part, _, end := strings.Cut(rest, to)
	if !ok || !end {
		t.Fatalf("%s has no %q", file, from)
	}
	return part
}

// The kubelet starts the static pod without asking; that it is a sound Pod the server tells as well.
func (o *operator) staticPod(t *testing.T) {
	const file = "-f $EXAMPLES/kmsbridged-static-pod.yaml"
	o.prints("kubectl apply --validate=strict --dry-run=server "+file, "pod/kmsbridged created (server dry run)")
	o.prints("kubectl create --validate=strict "+file, "pod/kmsbridged created")
	o.prints("kubectl get pod kmsbridged --namespace=kube-system -o jsonpath='{.spec.priority}'", "2000001000")
}

// Every document that has such fences is in the table, and the other way round.
func TestDocumentsAreListed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(source(t, "docs/*.md"))
	fixture.Must(t, err, "docs")
	listed := map[string]bool{}
	for _, document := range documents {
		listed[document.file] = true
	}
	for _, file := range append(files, source(t, "README.md")) {
		name, err := filepath.Rel(source(t, ""), file)
		fixture.Must(t, err, file)
		if has := len(blocksOf(t, name)) > 0; has != listed[name] {
			t.Errorf("%s has what is to be run: %v; is run: %v", name, has, listed[name])
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("%s is not there", name)
	}
}

// What is run, and what is to be seen of it.
func TestFences(t *testing.T) {
	t.Parallel()
	const text = "kubectl\n```sh\nkubectl 1\n```\n```sh run kubernetes\nkubectl 2\nkubectl 3\n```\nand\n" +
		"```text seen\none (...) three\nfour\n```\n```sh run\nkubectl 5\n```\n```text seen\nfive\n```\n"
	all := blocks("it", text)
	if len(all) != 1 || all[0].script != "kubectl 2\nkubectl 3\n" || all[0].line != 5 || len(all[0].seen) != 2 {
		t.Fatalf("%+v", all)
	}
	for out, want := range map[string]string{"one (2) three\nfour\n": "", "zero\none (two) three\nfour": "",
		"one 2 three\nfour\n": "one (...) three", "one (2) three\nfourteen\n": "four", "": "one (...) three"} {
		if got := all[0].lacks(out); got != want {
			t.Errorf("%q lacks %q, not %q", out, got, want)
		}
	}
}
