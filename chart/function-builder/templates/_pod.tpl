{{/* The builder's pods, of a Deployment, or of a StatefulSet if each pod has its own cache. */}}
{{- define "builder.podTemplate" -}}
{{- $sidecar := include "builder.hasSidecar" . -}}
{{- $tls := and (include "builder.hasTcp" .) .Values.tls.clientSecret -}}
metadata:
  labels:
    {{- include "builder.selector" . | nindent 4 }}
    {{- include "builder.podLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: pro-builder
    {{- if .Values.metrics.scrapeAnnotations }}
    prometheus.io/scrape: "true"
    prometheus.io/port: {{ include "builder.port" .Values.metricsListen | quote }}
    prometheus.io/path: /metrics
    {{- end }}
    {{- if $sidecar }}
    # BuildKit reads its configuration when it starts.
    checksum/buildkitd.toml: {{ include "builder.buildkitConfig" . | sha256sum }}
    # IRSA's token is only for the builder. BuildKit, which runs builds, must not have it.
    eks.amazonaws.com/skip-containers: buildkit,cache
    {{- if and (eq (include "builder.buildkitKind" .) "rootless") (semverCompare "<1.30-0" .Capabilities.KubeVersion.Version) }}
    # Kubernetes 1.30 added a field for this. The annotation is on the pod, with the container's name.
    container.apparmor.security.beta.kubernetes.io/buildkit: unconfined
    {{- end }}
    {{- end }}
    {{- with .Values.sourcePolicy.rules }}
    # The builder reads it when it starts.
    checksum/source-policy: {{ toJson . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- if $sidecar }}
  {{- if eq (include "builder.buildkitKind" .) "userns" }}
  hostUsers: false
  {{- end }}
  {{- end }}
  # Longer than the drain, so that builds end and clients get their answers before the kubelet kills.
  terminationGracePeriodSeconds: {{ add .Values.settings.drain_delay .Values.settings.drain_timeout 30 }}
  # No container uses Kubernetes' API. IRSA's webhook adds its own token, which is only for AWS.
  automountServiceAccountToken: false
  # Service links would add environment variables for each Service of the namespace.
  enableServiceLinks: false
  {{- if or .Values.serviceAccount .Values.serviceAccountAnnotations }}
  serviceAccountName: {{ include "builder.serviceAccount" . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- $base := dict "fsGroup" 1000 "fsGroupChangePolicy" "OnRootMismatch" }}
    {{- mergeOverwrite $base (deepCopy (default dict .Values.securityContext)) | toYaml | nindent 4 }}
  {{- if $sidecar }}
  initContainers:
    - {{ include "builder.cacheContainer" . | nindent 6 | trim }}
    - {{ include "builder.buildkitContainer" (dict "root" . "pool" false) | nindent 6 | trim }}
  {{- end }}
  containers:
    - {{ include "builder.container" . | nindent 6 | trim }}
  volumes:
    # Whole Secrets instead of single keys, so that the keys of a later rotation appear.
    - name: payload-secret
      secret:
        secretName: {{ .Values.payloadSecret }}
        defaultMode: 0440
        optional: {{ eq (toString .Values.disableHmac) "true" }}
    - name: registry-secret
      secret:
        secretName: {{ .Values.registrySecret }}
        defaultMode: 0440
        # Registries without a password need no Secret.
        optional: true
    {{- with include "builder.tenantsSecret" . }}
    # The whole Secret, so that a new tenant's files appear.
    - name: tenants
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.sourcePolicy.rules }}
    - name: source-policy
      configMap:
        name: {{ include "builder.fullname" . }}-source-policy
    {{- end }}
    {{- if .Values.buildSecrets.privateKeySecret }}
    - name: build-secrets-key
      secret:
        secretName: {{ .Values.buildSecrets.privateKeySecret }}
        defaultMode: 0440
        items:
          - key: {{ .Values.buildSecrets.privateKeyKey }}
            path: {{ .Values.buildSecrets.privateKeyKey }}
    {{- end }}
    {{- if .Values.awsCredentialsSecret }}
    - name: aws-credentials
      secret:
        secretName: {{ .Values.awsCredentialsSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if $tls }}
    - name: client-certs
      {{- include "builder.certs" (dict "root" . "secret" .Values.tls.clientSecret "name" "client") | nindent 6 }}
    {{- end }}
    {{- if .Values.queue.enabled }}
    {{- include "builder.queueVolumes" . | trim | nindent 4 }}
    {{- end }}
    - name: spool
      emptyDir:
        # The builder enforces it (max_spool_bytes), because the kubelet only counts files with a name,
        # and bodies have no name.
        sizeLimit: {{ include "builder.bytes" .Values.proBuilder.spoolSize | quote }}
    {{- if $sidecar }}
    {{- include "builder.buildkitVolumes" . | nindent 4 }}
    {{- if eq .Values.buildkit.cache.type "emptyDir" }}
    - name: cache
      emptyDir:
        sizeLimit: {{ .Values.buildkit.cache.size }}
    {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  topologySpreadConstraints:
    {{- include "builder.spread" (dict "constraints" .Values.topologySpreadConstraints "selector" (include "builder.selector" .)) | nindent 4 }}
  {{- include "builder.names" . | nindent 2 }}
  {{- include "builder.placement" .Values | nindent 2 }}
{{- end -}}

{{/* Name resolution of the builders' and BuildKits' pods. */}}
{{- define "builder.names" -}}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "builder.placement" -}}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A Secret of `function-builder certs`, or one of cert-manager, whose keys have other names. */}}
{{- define "builder.certs" -}}
secret:
  secretName: {{ .secret }}
  defaultMode: 0440
  {{- if .root.Values.tls.certManager.enabled }}
  items:
    - {key: ca.crt, path: ca.crt}
    - {key: tls.crt, path: {{ .name }}.crt}
    - {key: tls.key, path: {{ .name }}.key}
  {{- end }}
{{- end -}}

{{- define "builder.buildkitVolumes" -}}
- name: buildkit-config
  configMap:
    name: {{ include "builder.buildkitName" . }}
- name: buildkit-run
  emptyDir: {}
- name: buildkit-tmp
  emptyDir: {}
- name: socket-dir
  emptyDir: {}
{{- end -}}

{{- define "builder.buildkitUrl" -}}
{{- if eq .Values.topology "external" -}}
{{ required "topology external: buildkit.url has to say where BuildKit is" .Values.buildkit.url }}
{{- else if eq .Values.topology "pool" -}}
dns://{{ include "builder.buildkitName" . }}:{{ include "builder.port" .Values.pool.listen }}
{{- else -}}
unix:///home/app/.local/run/buildkit/buildkitd.sock
{{- end -}}
{{- end -}}

{{- define "builder.container" -}}
name: pro-builder
image: {{ include "builder.image" . }}
imagePullPolicy: {{ .Values.imagePullPolicy }}
env:
  - name: listen
    value: {{ .Values.listen | quote }}
  - name: metrics_listen
    value: {{ .Values.metricsListen | quote }}
  - name: buildkit_url
    value: {{ include "builder.buildkitUrl" . | quote }}
  {{- with .Values.buildkit.serverName }}
  - name: buildkit_server_name
    value: {{ . | quote }}
  {{- end }}
  - name: max_inflight
    value: {{ .Values.proBuilder.maxInflight | int64 | quote }}
  - name: max_spool_bytes
    value: {{ include "builder.bytes" .Values.proBuilder.spoolSize | quote }}
  - name: disable_hmac
    value: {{ eq (toString .Values.disableHmac) "true" | quote }}
  - name: enable_lchown
    value: {{ eq (toString .Values.enableLchown) "true" | quote }}
  {{- with .Values.buildSecrets }}{{ if .privateKeySecret }}
  - name: build_secrets_private_key_path
    value: {{ printf "%s/%s" .mountPath .privateKeyKey | quote }}
  {{- end }}{{ end }}
  {{- if include "builder.tenantsSecret" . }}
  - name: tenants_file
    value: /var/secrets/tenants/tenants.yaml
  {{- end }}
  {{- if .Values.sourcePolicy.rules }}
  - name: source_policy
    value: /etc/function-builder/policy.json
  {{- end }}
  {{- if .Values.awsCredentialsSecret }}
  - name: AWS_SHARED_CREDENTIALS_FILE
    value: {{ printf "/var/secrets/aws-credentials/%s" .Values.awsCredentialsSecret | quote }}
  {{- end }}
  # docker-credential-ecr-login stores its tokens there, because its default directory is read-only.
  - name: AWS_ECR_CACHE_DIR
    value: /tmp/ecr
  {{- with include "builder.mirrors" . }}
  - name: registry_mirrors
    value: {{ . | quote }}
  {{- end }}
  {{- if .Values.queue.enabled }}
  {{- include "builder.queueEnvironment" . | trim | nindent 2 }}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  {{- /* Helm would write a large number with an exponent. */}}
  - name: {{ $name }}
    value: {{ kindIs "float64" $value | ternary (int64 $value) $value | quote }}
  {{- end }}
  {{- with .Values.proBuilder.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if and .Values.queue.enabled .Values.queue.storeSecret }}
envFrom:
  # The names are those of the cloud's own tools.
  - secretRef:
      name: {{ .Values.queue.storeSecret }}
{{- end }}
ports:
  - name: http
    containerPort: {{ include "builder.port" .Values.listen }}
  - name: metrics
    containerPort: {{ include "builder.port" .Values.metricsListen }}
# The other two probes begin after this one succeeds. They are pro-builder's, and would kill a slow start.
startupProbe:
  httpGet:
    path: /healthz
    port: http
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: http
  initialDelaySeconds: 2
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 2
readinessProbe:
  httpGet:
    path: /ready
    port: http
  initialDelaySeconds: 2
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 1
resources:
  {{- toYaml .Values.proBuilder.resources | nindent 2 }}
securityContext:
  {{- include "builder.overlaid" (dict "base" (include "builder.securityContext" .) "over" .Values.proBuilder.securityContext) | nindent 2 }}
volumeMounts:
  - name: payload-secret
    mountPath: /var/openfaas/secrets
    readOnly: true
  - name: registry-secret
    mountPath: /home/app/.docker
    readOnly: true
  {{- if .Values.buildSecrets.privateKeySecret }}
  - name: build-secrets-key
    mountPath: {{ .Values.buildSecrets.mountPath }}
    readOnly: true
  {{- end }}
  {{- if include "builder.tenantsSecret" . }}
  - name: tenants
    mountPath: /var/secrets/tenants
    readOnly: true
  {{- end }}
  {{- if .Values.sourcePolicy.rules }}
  - name: source-policy
    mountPath: /etc/function-builder
    readOnly: true
  {{- end }}
  {{- if .Values.awsCredentialsSecret }}
  - name: aws-credentials
    mountPath: /var/secrets/aws-credentials
    readOnly: true
  {{- end }}
  {{- if include "builder.hasSidecar" . }}
  - name: socket-dir
    mountPath: /home/app/.local/run/buildkit
  {{- end }}
  {{- if and (include "builder.hasTcp" .) .Values.tls.clientSecret }}
  - name: client-certs
    mountPath: /var/secrets/certs
    readOnly: true
  {{- end }}
  {{- if .Values.queue.enabled }}
  {{- include "builder.queueMounts" . | trim | nindent 2 }}
  {{- end }}
  - name: spool
    mountPath: /tmp
  {{- with .Values.proBuilder.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "builder.securityContext" -}}
runAsUser: 1000
runAsGroup: 1000
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
