{{/*
The BuildKit of a sidecar and that of a pool: `root` is the chart's scope, `pool` says which.
It expects what the images moby/buildkit have: buildctl on the PATH, the entry point buildkitd, in
the rootless ones rootlesskit in front of it and the user 1000 with the home /home/user.
*/}}
{{- define "builder.buildkitState" -}}
{{- eq (include "builder.buildkitKind" .) "rootless" | ternary "/home/user/.local/share/buildkit" "/var/lib/buildkit" -}}
{{- end -}}

{{- define "builder.buildkitSecurityContext" -}}
{{- $kind := include "builder.buildkitKind" . -}}
{{- if eq $kind "rootless" -}}
runAsUser: 1000
runAsGroup: 1000
runAsNonRoot: true
readOnlyRootFilesystem: true
privileged: false
# newuidmap and newgidmap are set-uid programs: they could not give BuildKit's user namespace its
# ids without these two rights, nor if gaining rights were forbidden. BuildKit itself has neither.
allowPrivilegeEscalation: true
capabilities:
  drop: [ALL]
  add: [SETUID, SETGID]
# runc and the snapshotter call unshare and mount, which RuntimeDefault forbids.
seccompProfile:
  type: Unconfined
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}
# Docker's and containerd's profiles forbid mounts, in a user namespace too.
appArmorProfile:
  type: Unconfined
{{- end }}
{{- else if eq $kind "userns" -}}
# Root of the pod's user namespace and of nothing else: on the node it is an ordinary user without
# rights, and the node's devices refuse it.
runAsUser: 0
runAsGroup: 0
privileged: true
readOnlyRootFilesystem: true
{{- else -}}
# Root on the node: only because `buildkit.rootless: false` asks for it.
runAsUser: 0
runAsGroup: 0
privileged: true
readOnlyRootFilesystem: true
{{- end -}}
{{- end -}}

{{/* The container that readies the cache's directory, before BuildKit. */}}
{{- define "builder.cacheContainer" -}}
{{- $user := eq (include "builder.buildkitKind" .) "rootless" | ternary 1000 0 -}}
name: cache
image: {{ include "builder.buildkitImage" . }}
imagePullPolicy: {{ .Values.imagePullPolicy }}
# The kubelet gives the volumes of a pod with an fsGroup the set-group-id bit, and every directory
# made below inherits it: those of image layers too, so that it would end in the images that are
# built. A directory without the bit, for BuildKit to live in, stops that.
command:
  - sh
  - -c
  - >-
    mkdir -p /cache/state && chmod g-s /cache/state ||
    { echo "this volume's cache is that of another user's BuildKit: delete its claim, then the pod"; exit 1; }
securityContext:
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  runAsNonRoot: {{ ne $user 0 }}
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {memory: 64Mi}
volumeMounts:
  - name: cache
    mountPath: /cache
{{- end -}}

{{- define "builder.buildkitContainer" -}}
{{- $kind := include "builder.buildkitKind" .root -}}
{{- $values := .root.Values -}}
name: buildkit
image: {{ include "builder.buildkitImage" .root }}
imagePullPolicy: {{ $values.imagePullPolicy }}
{{- if not .pool }}
# What makes it a native sidecar: started before the builder, stopped after it, so that builds may
# end while the pod does.
restartPolicy: Always
{{- end }}
args:
  - --config=/etc/buildkit/buildkitd.toml
  - --addr=unix:///run/builder/buildkitd.sock
  {{- if ne $kind "rootless" }}
  # The builder's group, so that it may use the socket.
  - --group=1000
  {{- else }}
  # A RUN step with processes of its own needs a /proc of its own, which the kernel refuses to a
  # user namespace in a container whose /proc is masked; Kubernetes cannot unmask it here. The
  # price: steps see BuildKit's processes, and one that a step leaves behind runs on.
  - --oci-worker-no-process-sandbox
  {{- end }}
  {{- if .pool }}
  - --addr=tcp://{{ $values.pool.listen }}
  - --tlscacert=/var/secrets/certs/ca.crt
  - --tlscert=/var/secrets/certs/server.crt
  - --tlskey=/var/secrets/certs/server.key
  {{- end }}
env:
  # For `kubectl exec … -c buildkit -- buildctl du`, and the probes.
  - name: BUILDKIT_HOST
    value: unix:///run/builder/buildkitd.sock
  # Nothing else is writable.
  - name: TMPDIR
    value: /tmp
  - name: XDG_RUNTIME_DIR
    value: /run
  - name: BUILDKIT_STEP_LOG_MAX_SIZE
    value: {{ int64 $values.buildkit.stepLog.maxSize | quote }}
  - name: BUILDKIT_STEP_LOG_MAX_SPEED
    value: {{ int64 $values.buildkit.stepLog.maxSpeed | quote }}
  {{- with $values.buildkit.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if .pool }}
ports:
  - name: buildkit
    containerPort: {{ include "builder.port" $values.pool.listen }}
{{- end }}
# Holds back the builder until there is a BuildKit: five minutes, for a large cache is read first.
startupProbe:
  exec:
    command: [buildctl, debug, workers]
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 150
# Slow to judge: BuildKit under load may be slow to answer, and its end is that of all its builds.
livenessProbe:
  exec:
    command: [buildctl, debug, workers]
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 5
{{- if .pool }}
# Takes it out of the name that builders look up. A sidecar needs none: the builder's /ready asks it.
readinessProbe:
  exec:
    command: [buildctl, debug, workers]
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 2
{{- end }}
resources:
  {{- toYaml $values.buildkit.resources | nindent 2 }}
securityContext:
  {{- include "builder.overlaid" (dict "base" (include "builder.buildkitSecurityContext" .root) "over" $values.buildkit.securityContext) | nindent 2 }}
volumeMounts:
  - name: cache
    mountPath: {{ include "builder.buildkitState" .root }}
    subPath: state
  - name: buildkit-config
    mountPath: /etc/buildkit
    readOnly: true
  - name: buildkit-run
    mountPath: /run
  - name: buildkit-tmp
    mountPath: /tmp
  - name: socket-dir
    mountPath: /run/builder
  {{- if .pool }}
  - name: certs
    mountPath: /var/secrets/certs
    readOnly: true
  {{- end }}
  {{- with $values.buildkit.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}


{{- define "builder.cacheClaim" -}}
volumeClaimTemplates:
  - metadata:
      name: cache
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .Values.buildkit.cache.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .Values.buildkit.cache.size }}
{{- end -}}

{{- define "builder.buildkitConfig" -}}
{{- $size := include "builder.bytes" .Values.buildkit.cache.size | int64 -}}
root = {{ include "builder.buildkitState" . | quote }}

[otel]
# Its usual place is the directory of the socket.
socketPath = "/tmp/traces.sock"

[cdi]
# No build is ever given a device.
disabled = true

[history]
maxEntries = 50

[worker.containerd]
enabled = false

[worker.oci]
enabled = true
gc = true
# Of {{ .Values.buildkit.cache.size }}, in bytes: a share of the disk would be one of the node's where the volume
# is a directory of it. Running builds need what is left.
reservedSpace = {{ div $size 5 }}
maxUsedSpace = {{ div (mul $size 4) 5 }}
minFreeSpace = {{ div $size 10 }}
{{- with .Values.buildkit.maxParallelism }}
max-parallelism = {{ . | int64 }}
{{- end }}
{{- with .Values.buildkit.registries }}

{{ dict "registry" . | toToml | trim }}
{{- end }}
{{- with .Values.buildkit.config }}

{{ . | trim }}
{{- end }}
{{- end -}}
