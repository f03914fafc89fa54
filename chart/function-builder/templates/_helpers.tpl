{{/*
The same name as in pro-builder's chart. A StatefulSet's pods have a label of its name, a dash and a hash of
ten characters, which may have 63 characters in total.
*/}}
{{- define "builder.fullname" -}}
{{- $name := default "pro-builder" .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Also the name of a StatefulSet, so the name is shortened for the suffix. */}}
{{- define "builder.buildkitName" -}}
{{ include "builder.fullname" . | trunc 43 | trimSuffix "-" }}-buildkit
{{- end -}}

{{/*
pro-builder's own selector, whatever fullnameOverride says: a Deployment's cannot be changed, so
`helm upgrade` needs the same. Two releases of one namespace differ in their Service's name.
*/}}
{{- define "builder.selector" -}}
app: {{ default .Values.service.name .Values.nameOverride }}
component: pro-builder
{{- end -}}

{{/* `root` is the chart's scope, `component` that of a pool. */}}
{{- define "builder.poolSelector" -}}
app: {{ default .root.Values.service.name .root.Values.nameOverride }}
component: {{ .component }}
{{- end -}}

{{- define "builder.poolLabels" -}}
{{ include "builder.poolSelector" . }}
{{ include "builder.commonLabels" .root }}
{{- end -}}

{{/*
The pools of BuildKits, that of the builder and those of tenants, as JSON: the `name` of a pool's objects,
the `component` of its pods, and its `values`. The components differ, so that no selector finds another
pool's pods.
*/}}
{{- define "builder.pools" -}}
{{- $pools := list -}}
{{- $shared := include "builder.buildkitName" . -}}
{{- if eq .Values.topology "pool" -}}
{{- $pools = append $pools (dict "name" $shared "component" "buildkit" "values" .Values.pool) -}}
{{- end -}}
{{- range $key, $values := .Values.tenants.pools -}}
{{- $name := printf "%s-%s" $shared $key -}}
{{- if gt (len $name) 52 -}}
{{- /* A pod's label has it with a hash, and 63 characters in total. */ -}}
{{- fail (printf "tenants.pools: the name %s has more than 52 characters: use a shorter key than %s" $name $key) -}}
{{- end -}}
{{- $own := mergeOverwrite (deepCopy $.Values.pool) (deepCopy $values) -}}
{{- $pools = append $pools (dict "name" $name "component" (printf "buildkit-%s" $key) "values" $own) -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{- define "builder.testSelector" -}}
app: {{ default .Values.service.name .Values.nameOverride }}
component: test
{{- end -}}

{{/* Labels of pods have no versions, so that a new chart version alone does not restart pods. */}}
{{- define "builder.podLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "builder.commonLabels" -}}
{{ include "builder.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: openfaas
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "builder.labels" -}}
{{ include "builder.selector" . }}
{{ include "builder.commonLabels" . }}
{{- end -}}

{{- define "builder.buildkitLabels" -}}
{{ include "builder.poolLabels" (dict "root" . "component" "buildkit") }}
{{- end -}}

{{/* Whether proBuilder.image is pro-builder's image, in its own registry or a mirror. */}}
{{- define "builder.imageIsClosed" -}}
{{- if regexMatch "(^|/)openfaasltd/pro-builder([:@]|$)" .Values.proBuilder.image }}true{{ end -}}
{{- end -}}

{{- define "builder.image" -}}
{{- if or (not .Values.proBuilder.image) (include "builder.imageIsClosed" .) -}}
ghcr.io/function-builder/function-builder:{{ .Chart.AppVersion }}
{{- else -}}
{{ .Values.proBuilder.image }}
{{- end -}}
{{- end -}}

{{/* rootless, userns or privileged */}}
{{- define "builder.buildkitKind" -}}
{{- if not .Values.buildkit.hostUsers -}}
{{- if semverCompare "<1.33-0" .Capabilities.KubeVersion.Version -}}
{{- /* An older Kubernetes would run a privileged container, as root on the node, without a warning. */ -}}
{{- fail (printf "buildkit.hostUsers: Kubernetes drops the field before 1.33 (this is %s)" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
userns
{{- else if .Values.buildkit.rootless }}rootless
{{- else }}privileged
{{- end -}}
{{- end -}}

{{- define "builder.buildkitImage" -}}
{{- eq (include "builder.buildkitKind" .) "rootless" | ternary .Values.buildkitRootless.image .Values.buildkit.image -}}
{{- end -}}

{{- define "builder.hasSidecar" -}}
{{- if eq .Values.topology "sidecar" }}true{{ end -}}
{{- end -}}

{{/* Whether builders reach a BuildKit on TCP, with certificates if there are any. */}}
{{- define "builder.hasTcp" -}}
{{- if or (not (include "builder.hasSidecar" .)) .Values.tenants.pools }}true{{ end -}}
{{- end -}}

{{/* The Secret of the tenants; empty: there is none. */}}
{{- define "builder.tenantsSecret" -}}
{{- if and .Values.tenants.secret .Values.tenants.files -}}
{{- fail "tenants: secret names a Secret that exists, and files makes one: leave one of them empty" -}}
{{- end -}}
{{- if .Values.tenants.files }}{{ include "builder.fullname" . }}-tenants{{ else }}{{ .Values.tenants.secret }}{{ end -}}
{{- end -}}

{{/* Only a StatefulSet gives each replica its own claim. */}}
{{- define "builder.kind" -}}
{{- if and (include "builder.hasSidecar" .) (eq .Values.buildkit.cache.type "persistentVolume") }}StatefulSet
{{- else }}Deployment
{{- end -}}
{{- end -}}

{{- define "builder.serviceAccount" -}}
{{- default (include "builder.fullname" .) .Values.serviceAccount -}}
{{- end -}}

{{/* The port of an address such as `:8080` or `[::]:8080`. */}}
{{- define "builder.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- define "builder.url" -}}
http://{{ .Values.service.name }}.{{ .Release.Namespace }}:8080
{{- end -}}

{{/* A size such as 50Gi, or a plain number, in bytes. */}}
{{- define "builder.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- /* Helm reads a number as a float, and would write it with an exponent. */ -}}
{{- $size := kindIs "float64" . | ternary (int64 .) . | toString -}}
{{- if not (regexMatch "^[1-9][0-9]*(k|M|G|T|Ki|Mi|Gi|Ti)?$" $size) -}}
{{- fail (printf "%q is not a size: use a whole number of bytes, or with one of k, M, G, T, Ki, Mi, Gi, Ti" $size) -}}
{{- end -}}
{{- mul (regexFind "^[0-9]+" $size | int64) (get $units (regexFind "[A-Za-z]*$" $size) | int64) -}}
{{- end -}}

{{- define "builder.spread" -}}
{{- if .constraints -}}
{{ toYaml .constraints }}
{{- else -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  # A preference only, so that a pod without a suitable node still starts.
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- .selector | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "builder.egress" -}}
{{- if .Values.networkPolicy.egress -}}
{{ toYaml .Values.networkPolicy.egress }}
{{- else -}}
- to:
    # By address and by namespace, because some networks (Cilium) do not match pods by address.
    - namespaceSelector: {}
    {{- $v4 := list }}{{ $v6 := list }}
    {{- range .Values.networkPolicy.egressExcept }}
    {{- if contains ":" . }}{{ $v6 = append $v6 . }}{{ else }}{{ $v4 = append $v4 . }}{{ end }}
    {{- end }}
    {{- range $cidr, $except := dict "0.0.0.0/0" $v4 "::/0" $v6 }}
    - ipBlock:
        cidr: {{ $cidr }}
        {{- with $except }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/*
The securityContext of the values (`over`) merged over that of the chart (`base`, as YAML). The chart's
restrictions that contradict the values are left out, because Kubernetes would reject them.
*/}}
{{- define "builder.overlaid" -}}
{{- $base := .base | fromYaml -}}
{{- $over := .over | default dict -}}
{{- if $over.privileged -}}
{{- $base = omit $base "allowPrivilegeEscalation" -}}
{{- end -}}
{{- if eq (toString $over.runAsUser) "0" -}}
{{- $base = omit $base "runAsNonRoot" -}}
{{- end -}}
{{- mergeOverwrite $base (deepCopy $over) | toYaml -}}
{{- end -}}

{{/* BuildKit's mirrors, in the form of the setting registry_mirrors. */}}
{{- define "builder.mirrors" -}}
{{- if and (ne .Values.topology "external") (not (hasKey .Values.settings "registry_mirrors")) -}}
{{- $mirrors := list -}}
{{- range $registry, $table := .Values.buildkit.registries -}}
{{- range $mirror := $table.mirrors -}}
{{- if regexMatch "^([A-Za-z0-9.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]+)?(/[a-z0-9._/-]+)?$" $mirror -}}
{{- $mirrors = append $mirrors (printf "%s=%s" $registry $mirror) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "," $mirrors -}}
{{- end -}}
{{- end -}}
