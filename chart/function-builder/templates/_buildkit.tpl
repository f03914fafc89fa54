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
# newuidmap and newgidmap, which are set-uid programs, need these two capabilities and privilege
# escalation to give BuildKit's user namespace its IDs. BuildKit itself has neither.
allowPrivilegeEscalation: true
capabilities:
  drop: [ALL]
  add: [SETUID, SETGID]
# runc and the snapshotter call unshare and mount, which RuntimeDefault forbids.
seccompProfile:
  type: Unconfined
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}
# Docker's and containerd's profiles forbid mounts, also in a user namespace.
appArmorProfile:
  type: Unconfined
{{- end }}
{{- else if eq $kind "userns" -}}
# Only root of the pod's user namespace: on the node it is an unprivileged user, which cannot open
# the node's devices.
runAsUser: 0
runAsGroup: 0
privileged: true
readOnlyRootFilesystem: true
{{- else -}}
# Root on the node, because of `buildkit.rootless: false`.
runAsUser: 0
runAsGroup: 0
privileged: true
readOnlyRootFilesystem: true
{{- end -}}
{{- end -}}

{{/* The init container that prepares the cache's directory. It runs before BuildKit. */}}
{{- define "builder.cacheContainer" -}}
{{- $user := eq (include "builder.buildkitKind" .) "rootless" | ternary 1000 0 -}}
name: cache
image: {{ include "builder.buildkitImage" . }}
imagePullPolicy: {{ .Values.imagePullPolicy }}
# The kubelet gives the volumes of a pod with an fsGroup the set-group-ID bit. Every directory below
# inherits it, including those of image layers, so built images would have it. BuildKit therefore
# uses a directory without the bit.
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
# This makes it a native sidecar: it starts before the builder and stops after it, so builds can end
# while the pod shuts down.
restartPolicy: Always
{{- end }}
args:
  - --config=/etc/buildkit/buildkitd.toml
  - --addr=unix:///run/builder/buildkitd.sock
  {{- if ne $kind "rootless" }}
  # The builder's group, so that the builder can open the socket.
  - --group=1000
  {{- else }}
  # Without this flag, each RUN step mounts its own /proc. The kernel refuses that in a user
  # namespace if the container's /proc is masked, and Kubernetes cannot unmask it here. In return,
  # steps see BuildKit's processes, and processes that a step leaves behind keep running.
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
  # All other paths are read-only.
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
# The builder starts after BuildKit. Five minutes, because BuildKit first reads a large cache.
startupProbe:
  exec:
    command: [buildctl, debug, workers]
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 150
# A long limit: BuildKit may answer slowly under load, and a restart ends all its builds.
livenessProbe:
  exec:
    command: [buildctl, debug, workers]
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 5
{{- if .pool }}
# Removes an unready BuildKit from DNS. A sidecar needs no probe, because the builder's /ready checks it.
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
# The default is the directory of the socket.
socketPath = "/tmp/traces.sock"

[cdi]
# Builds get no devices.
disabled = true

[history]
maxEntries = 50

[worker.containerd]
enabled = false

[worker.oci]
enabled = true
gc = true
# Of {{ .Values.buildkit.cache.size }}, in bytes: a percentage would be that of the node's disk if the
# volume is a directory there. Running builds need the rest.
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
