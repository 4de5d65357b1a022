module kmsbridge.test/harness

go 1.26.0

require k8s.io/apiserver v0.36.3 // indirect
