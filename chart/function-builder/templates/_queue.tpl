{{/*
The queue of builds that outlive their connection: where builders find NATS and the store, and the NATS
of this release. It expects `nats-server` on the PATH of the image, as nats:*-alpine has it, and the
builder's own image too.
*/}}
{{- define "builder.natsName" -}}
{{ include "builder.fullname" . | trunc 43 | trimSuffix "-" }}-nats
{{- end -}}

{{- define "builder.natsSelector" -}}
app: {{ default .Values.service.name .Values.nameOverride }}
component: nats
{{- end -}}

{{- define "builder.natsLabels" -}}
{{ include "builder.natsSelector" . }}
{{ include "builder.commonLabels" . }}
{{- end -}}

{{- define "builder.hasNats" -}}
{{- if and .Values.queue.enabled .Values.queue.nats.enabled }}true{{ end -}}
{{- end -}}

{{/* Whether the store is a volume; refuses a queue without a store. */}}
{{- define "builder.hasStoreVolume" -}}
{{- if and .Values.queue.enabled (not .Values.queue.storeUrl) -}}
{{- if not .Values.queue.storeVolume.enabled -}}
{{- fail "queue: queue.storeUrl names no bucket: set it, or queue.storeVolume.enabled for a volume that all builders share" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- define "builder.storeClaim" -}}
{{- default (printf "%s-store" (include "builder.fullname" .)) .Values.queue.storeVolume.existingClaim -}}
{{- end -}}

{{/* The Secret of NATS' authority and of the builders' certificate; empty without TLS. */}}
{{- define "builder.natsTlsSecret" -}}
{{- if include "builder.hasNats" . }}{{ .Values.queue.nats.tlsSecret }}{{ else }}{{ .Values.queue.tls.secret }}{{ end -}}
{{- end -}}

{{/* nats_url; Kubernetes puts the password in. */}}
{{- define "builder.natsUrl" -}}
{{- if include "builder.hasNats" . -}}
{{- $name := include "builder.natsName" . -}}
{{- $scheme := empty .Values.queue.nats.tlsSecret | ternary "nats" "tls" -}}
{{- $servers := list -}}
{{- range $number := until (int .Values.queue.nats.replicas) -}}
{{- $servers = append $servers (printf "%s://builder:$(QUEUE_PASSWORD)@%s-%d.%s:4222" $scheme $name $number $name) -}}
{{- end -}}
{{- join "," $servers -}}
{{- else if eq .Values.queue.auth.kind "password" -}}
{{- .Values.queue.natsUrl | replace "://" "://$(QUEUE_USER):$(QUEUE_PASSWORD)@" -}}
{{- else -}}
{{- .Values.queue.natsUrl -}}
{{- end -}}
{{- end -}}

{{- define "builder.queueEnvironment" -}}
{{- $queue := .Values.queue -}}
{{- if include "builder.hasNats" . }}
- name: QUEUE_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $queue.nats.secret }}, key: password}
{{- else if eq $queue.auth.kind "password" }}
{{- range $name, $key := dict "QUEUE_USER" "user" "QUEUE_PASSWORD" "password" }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ required "queue.auth: secret has to name the Secret" $queue.auth.secret }}, key: {{ $key }}}
{{- end }}
{{- end }}
- name: nats_url
  value: {{ include "builder.natsUrl" . | quote }}
- name: nats_replicas
  value: {{ include "builder.hasNats" . | empty | ternary $queue.natsReplicas $queue.nats.replicas | int64 | quote }}
{{- if include "builder.natsFile" . }}
- name: {{ eq $queue.auth.kind "nkey" | ternary "nats_nkey_seed_file" "nats_credentials_file" }}
  value: /var/secrets/nats/{{ include "builder.natsFile" . }}
{{- end }}
{{- if include "builder.natsTlsSecret" . }}
- name: nats_ca_file
  value: /var/secrets/nats-tls/ca.crt
{{- if include "builder.natsClientCertificate" . }}
- name: nats_cert_file
  value: /var/secrets/nats-tls/tls.crt
- name: nats_key_file
  value: /var/secrets/nats-tls/tls.key
{{- end }}
{{- end }}
- name: store_url
  value: {{ include "builder.hasStoreVolume" . | empty | ternary $queue.storeUrl "file:///var/lib/function-builder/store" | quote }}
{{- end -}}

{{/* The key of `queue.auth.secret` that is a file; empty if builders need none. */}}
{{- define "builder.natsFile" -}}
{{- if and (not (include "builder.hasNats" .)) (ne .Values.queue.auth.kind "password") .Values.queue.auth.secret -}}
{{- eq .Values.queue.auth.kind "nkey" | ternary "nkey.seed" "nats.creds" -}}
{{- end -}}
{{- end -}}

{{- define "builder.natsClientCertificate" -}}
{{- if and (not (include "builder.hasNats" .)) .Values.queue.tls.clientCertificate }}true{{ end -}}
{{- end -}}

{{- define "builder.queueVolumes" -}}
{{- if include "builder.natsFile" . }}
- name: nats-credentials
  secret:
    secretName: {{ .Values.queue.auth.secret }}
    defaultMode: 0440
    items:
      - {key: {{ include "builder.natsFile" . }}, path: {{ include "builder.natsFile" . }}}
{{- end }}
{{- if include "builder.natsTlsSecret" . }}
- name: nats-tls
  secret:
    secretName: {{ include "builder.natsTlsSecret" . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      {{- if include "builder.natsClientCertificate" . }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end }}
{{- if include "builder.hasStoreVolume" . }}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "builder.storeClaim" . }}
{{- end }}
{{- end -}}

{{- define "builder.queueMounts" -}}
{{- if include "builder.natsFile" . }}
- name: nats-credentials
  mountPath: /var/secrets/nats
  readOnly: true
{{- end }}
{{- if include "builder.natsTlsSecret" . }}
- name: nats-tls
  mountPath: /var/secrets/nats-tls
  readOnly: true
{{- end }}
{{- if include "builder.hasStoreVolume" . }}
- name: store
  mountPath: /var/lib/function-builder
{{- end }}
{{- end -}}

{{- define "builder.natsConfig" -}}
{{- $nats := .Values.queue.nats -}}
{{- $name := include "builder.natsName" . -}}
server_name: $POD_NAME
port: 4222
http_port: 8222
# Builders answer 202 when NATS has acknowledged a build. Each message is on the disk before that.
jetstream {
  store_dir: /data
  sync_interval: always
  # Of {{ $nats.size }}, in bytes: NATS writes an index beside the messages.
  max_file_store: {{ div (mul (include "builder.bytes" $nats.size | int64) 9) 10 }}
}
authorization { user: builder, password: $NATS_PASSWORD }
{{- if $nats.tlsSecret }}
tls { cert_file: /var/secrets/tls/tls.crt, key_file: /var/secrets/tls/tls.key }
{{- end }}
{{- if gt (int $nats.replicas) 1 }}
# The preStop hook finds the process there.
pid_file: /run/nats/nats.pid
lame_duck_duration: 30s
lame_duck_grace_period: 5s
cluster {
  name: {{ $name }}
  port: 6222
  # Builders know every server by its name, which is the one in its certificate.
  no_advertise: true
  authorization { user: route, password: $NATS_PASSWORD, timeout: 5 }
  {{- if $nats.tlsSecret }}
  tls { cert_file: /var/secrets/tls/tls.crt, key_file: /var/secrets/tls/tls.key, ca_file: /var/secrets/tls/ca.crt }
  {{- end }}
  routes: [
    {{- range $number := until (int $nats.replicas) }}
    $ROUTE_{{ $number }}
    {{- end }}
  ]
}
{{- end }}
{{- end -}}
