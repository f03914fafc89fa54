{{/*
The maps that pro-builder has too, and `settings`, once more: helm takes a key that is left empty for
one to delete, its defaults with it, and shows templates nothing else of values.yaml. The tests hold
the two together.
*/}}
{{- define "builder.defaults" -}}
proBuilder:
  image: ""
  maxInflight: 0
  resources: {requests: {memory: 128Mi, cpu: 100m}}
  securityContext: {}
  spoolSize: 20Gi
  env: []
  extraVolumeMounts: []
buildkitRootless:
  image: moby/buildkit:v0.34.2-rootless
buildkit:
  image: moby/buildkit:v0.34.2
  rootless: true
  hostUsers: true
  securityContext: {}
  resources: {requests: {memory: 2Gi, cpu: 2000m}}
  cache: {type: persistentVolume, size: 50Gi, storageClassName: ""}
  maxParallelism: 0
  stepLog:
    maxSize: 2097152
    maxSpeed: -1
  registries: {}
  config: ""
  env: []
  extraVolumeMounts: []
  url: ""
  serverName: ""
buildSecrets:
  privateKeySecret: ""
  privateKeyKey: key
  mountPath: /var/secrets/buildkit
tenants:
  secret: ""
  files: {}
  pools: {}
sourcePolicy:
  rules: []
settings:
  drain_delay: 5
  drain_timeout: 300
{{- end -}}

{{/* Sets defaults for empty values. Each template that reads one of these maps includes this first. */}}
{{- define "builder.fillIn" -}}
{{- include "builder.fillInMap" (dict "values" .Values "defaults" (include "builder.defaults" . | fromYaml)) -}}
{{- end -}}

{{- define "builder.fillInMap" -}}
{{- range $key, $default := .defaults -}}
{{- if kindIs "invalid" (index $.values $key) -}}
{{- $_ := set $.values $key $default -}}
{{- else if kindIs "map" $default -}}
{{- /* An empty `resources:` means no resources. */ -}}
{{- include "builder.fillInMap" (dict "values" (index $.values $key) "defaults" (omit $default "resources")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
