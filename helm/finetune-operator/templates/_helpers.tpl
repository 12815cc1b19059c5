{{/* The name of every object but the CRD. It carries the release, so that several releases fit into one cluster. */}}
{{- define "finetune-operator.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Who chooses the user of the pods: kubernetes (they name it) or openshift (the platform assigns it). */}}
{{- define "finetune-operator.platform" -}}
{{- if ne .Values.platform "auto" }}{{ .Values.platform }}
{{- else if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}openshift
{{- else }}kubernetes
{{- end }}
{{- end }}

{{- define "finetune-operator.labels" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "finetune-operator.crdAnnotations" -}}
{{- $keep := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep }}
{{- with merge $keep .Values.crds.annotations }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* A full image name. Takes (list $ .Values.images.NAME). */}}
{{- define "finetune-operator.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- $registry := $root.Values.images.registry | default $image.registry }}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What the operator may do in a namespace that it serves. No verb on Secrets, but it can create Jobs that mount them. */}}
{{- define "finetune-operator.rules" -}}
- apiGroups: [finetune.dev]
  resources: [finetunejobs]
  verbs: [get, list, watch]
- apiGroups: [finetune.dev]
  resources: [finetunejobs/status]
  verbs: [patch]
# To set blockOwnerDeletion where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [finetune.dev]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
{{- end }}

{{- define "finetune-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "finetune-operator.fullname" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* How a monitor scrapes. Takes (list .Values.metrics MONITOR). Metrics about jobs have the job's namespace as a label. */}}
{{- define "finetune-operator.scrape" -}}
{{- $metrics := index . 0 }}
{{- $monitor := index . 1 -}}
port: metrics
interval: {{ $monitor.interval }}
honorLabels: true
{{- if $metrics.tls.secretName }}
scheme: https
{{- with $monitor.tlsConfig }}
tlsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
